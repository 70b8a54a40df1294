"""Reads many damaged files with every reader, as tests/checkpoints/test_fuzz.py does with few.

    python tools/fuzz.py [--count 3000] [--seed 7] [--jobs 1] [--reader NAME] [--page FILE]

Each reader gets a process of its own, tests/support/fuzzing.py. It prints a table, and puts its
rows into the page's, which keeps the rows of other readers; a line for each fault goes to standard
error, and then the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FUZZING = Path(__file__).parents[1] / "tests/support/fuzzing.py"
sys.path.append(str(FUZZING.parent))
from fuzzing import READERS  # noqa: E402
from pages import page_with_rows  # noqa: E402

BEGIN = "<!-- table of damaged files: python tools/fuzz.py --page -->\n"
HEAD = ("| reader | mutants | read | refused | slowest | peak | faults |\n"
        "|---|---|---|---|---|---|---|\n")
LAST = re.compile(r"peak (\d+) MB, slowest ([\d.]+) s, .*read': (\d+), 'refused': (\d+)")


def run(name: str, count: int, seed: int) -> tuple[str, list[str]]:
    """Read the mutants of one reader; returns its row and what was wrong."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-W", "ignore", FUZZING, name, str(seed), "0",
                               str(count), folder], capture_output=True, text=True, check=False,
                              env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    faults = [f"{name}: {x}" for x in done.stdout.splitlines() if x.startswith("fault")]
    ended = LAST.search(done.stdout)
    if ended is None or done.returncode:
        said = [f"{name}: ended with {done.returncode}: {done.stderr[-600:]}"]
        return f"| {name} | {count:,} | - | - | - | - | ended |\n", faults + said
    peak, slowest, read, refused = ended.groups()
    return (f"| {name} | {count:,} | {int(read):,} | {int(refused):,} | {slowest} s | {peak} MB | "
            f"{len(faults)} |\n"), faults


def main() -> int:
    """Print the table."""
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("--count", 3000), ("--seed", 7), ("--jobs", 1)):
        p.add_argument(name, type=int, default=default)
    p.add_argument("--reader", action="append", choices=READERS, help="only this one; may repeat")
    p.add_argument("--page", type=Path, help="put the rows into the table of this page")
    args = p.parse_args()
    print(HEAD, end="")
    table, faults = HEAD, []
    with ThreadPoolExecutor(args.jobs) as pool:
        for row, wrong in pool.map(lambda n: run(n, args.count, args.seed), args.reader or READERS):
            print(row, end="", flush=True)
            table, faults = table + row, faults + wrong
    if args.page:
        args.page.write_text(page_with_rows(args.page.read_text(), BEGIN, table, READERS))
    print(*faults, sep="\n", end="\n" * bool(faults), file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
