"""Makes the table of docs/find-the-bad-kernel.md: which tool names which bad kernel.

`python tests/support/zoo/table.py [NAME ...]` tries the kernels, all of them or some, and writes
their rows into the page.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SUPPORT = Path(__file__).parents[1]
ROOT = SUPPORT.parents[1]
PAGE = ROOT / "docs/find-the-bad-kernel.md"
BEGIN, END = "<!-- zoo: tests/support/zoo/table.py writes what follows -->\n", "<!-- zoo ends -->\n"
PROCESSES = 2


def install(site, name="zoo"):
    """Make a folder for PYTHONPATH that holds the metadata of the plugin module `name`."""
    info = site / f"kernelyard_{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: kernelyard-{name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[kernelyard.plugins]\n{name} = {name}\n")
    return site


def tried(name, folder):
    """Return what every tool says of a kernel: {tool: (exit code, text)}."""
    path = os.pathsep.join(filter(None, [str(folder / "site"), str(SUPPORT),
                                         os.environ.get("PYTHONPATH")]))
    work = folder / "work"
    work.mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, "-m", "zoo.run", str(folder)], cwd=work, text=True,
                          env={**os.environ, "PYTHONPATH": path, "ZOO": name}, timeout=600,
                          capture_output=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


def cell(bad, tool, code, text):
    """Judge what a tool said: named for the right reason, or why not."""
    named = f"zoo:{bad.op}" in text and "Traceback" not in text
    if code in (1, 3) and named and re.search(bad.says, text):
        return "named"
    if tool in bad.why:
        return bad.why[tool]
    return "named, for another reason" if code in (1, 3) and named else "not named"


def row(name, folder):
    """Return a kernel's line of the table."""
    from zoo.bad import BAD
    bad = BAD[name]
    cells = [cell(bad, tool, *said) for tool, said in tried(name, folder).items()]
    return f"| {' | '.join([bad.what, bad.op, *cells])} |"


def rows(names, folder) -> Iterator[tuple[str, str]]:
    """Yield (name, line) of these kernels, several tried at a time."""
    from zoo.run import prepare
    install(folder / "site")
    prepare(folder)
    with ThreadPoolExecutor(PROCESSES) as pool:
        yield from zip(names, pool.map(lambda name: row(name, folder), names), strict=True)


def written():
    """Return the page's lines of kernels, by what is wrong with each."""
    lines = PAGE.read_text().partition(BEGIN)[2].partition(END)[0].splitlines()
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines[2:]}


def write(lines):
    """Write the table with these lines into the page."""
    from pages import page_with
    head = ["| the kernel | op | conformance | `run --check` | `verify --blame` | `--replay` |",
            "|---|---|---|---|---|---|"]
    PAGE.write_text(page_with(PAGE.read_text(), BEGIN, "\n".join([*head, *lines]) + "\n", END))


def main(names):
    from zoo.bad import BAD
    found = written()
    with tempfile.TemporaryDirectory() as folder:
        for name, line in rows(names or list(BAD), Path(folder)):
            print(line, flush=True)
            found[BAD[name].what] = line
    write([found[bad.what] for bad in BAD.values() if bad.what in found])


if __name__ == "__main__":
    sys.path[:0] = [str(SUPPORT)]
    main(sys.argv[1:])
