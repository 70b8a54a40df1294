"""Kills commands and interrupts them, at random moments and at each rename of an export.

    python tools/kills.py [--count 50] [--seed 1] [--jobs 2] [--case NAME] [--page docs/security.md]

Each run is a fresh process in an empty folder. It gets SIGKILL or SIGINT at a random moment after
its first line of Python, or at a random one of its renames. After that: SIGINT ends with exit code
130, within SLOWEST seconds and without a traceback; a target is the old one, the new one, or not
there, and it is said which; the next run works and leaves nothing beside the target. It prints a
table, and puts its rows into the page's, which keeps the rows of other cases; a line for each run
that broke a promise goes to standard error, and then the exit code is 1.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from killed import SIGNALS, Case, Cases, Row

sys.path.append(str(Path(__file__).parents[1] / "tests/support"))
from pages import page_with_rows

BEGIN = "<!-- table of kills: python tools/kills.py --page -->\n"
HEAD = ("| command | signal | runs | ended by it | finished before | slowest end | next runs | "
        "broken |\n|---|---|---|---|---|---|---|---|\n")


def _export(to: str, force: bool) -> tuple[str, ...]:
    return ("export", "--model", "stories-llama2", "--to", to, "--out", "m",
            *["--force"] * force)


GENERATE = ("run", "--prompt", "Once", "--max-new-tokens", "200")
CASES = {
    "start": Case(("models", "--json"), most=1.0, every=10),
    "load": Case(("run", "--model", "random:qwen2.5-0.5b:bf16:2", "--prompt-ids", "1",
                  "--max-new-tokens", "1", "--no-mmap"), every=10),
    "generate": Case(GENERATE),
    "compile": Case((*GENERATE, "--backend", "cpu_numba,cpu_numpy"), most=5.0, every=10,
                    cached=True),
    "compile two": Case(("run", "--prompt", "Once", "--max-new-tokens", "20", "--backend",
                         "cpu_numpy,cpu_numba", "--kernel", "rms_norm=cpu_numba", "--kernel",
                         "add_rms_norm=cpu_numba"), every=10, cached=True),
    "bench": Case(("bench", "--model", "stories-llama2", "--prompt", "16", "--tokens", "16",
                   "--repeat", "1"), every=10),
    "export hf --force": Case(_export("hf", True), old=True),
    "export kuiper --force": Case(_export("kuiper", True), old=True),
    "renames of hf": Case(_export("hf", False), renames=2),
    "renames of hf --force": Case(_export("hf", True), renames=2, old=True),
    "renames of kuiper": Case(_export("kuiper", False), renames=4),
    "renames of kuiper --force": Case(_export("kuiper", True), renames=8, old=True)}


def run(name: str, count: int, seed: int, home: Path) -> dict[str, Row]:
    """Run a case `count` times a signal."""
    cases = Cases(CASES[name], home)
    rows = {sign.name: Row() for sign in SIGNALS}
    for i in range(count):
        for sign in SIGNALS:
            rng = random.Random(f"{name} {seed} {int(sign)} {i}")
            cases.once(rows[sign.name], sign, rng, i % cases.case.every == 0)
    return rows


def main() -> int:
    """Print the table."""
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("--count", 50), ("--seed", 1), ("--jobs", 2)):
        p.add_argument(name, type=int, default=default)
    p.add_argument("--case", action="append", choices=CASES, help="only this one; may repeat")
    p.add_argument("--page", type=Path, help="put the rows into the table of this page")
    args = p.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    names = args.case or list(CASES)
    print(HEAD, end="")
    faults: list[str] = []
    table = HEAD
    with tempfile.TemporaryDirectory() as home, ThreadPoolExecutor(args.jobs) as pool:
        for name, rows in zip(names, pool.map(
                lambda n: run(n, args.count, args.seed, Path(home) / n), names), strict=True):
            for sign, row in rows.items():
                slow = f"{row.slowest:.1f} s" if row.slowest else "-"
                line = (f"| {name} | {sign} | {args.count} | {args.count - row.finished} | "
                        f"{row.finished} | {slow} | {row.nexts} | {len(row.faults)} |\n")
                print(line, end="", flush=True)
                table += line
                faults += [f"{name}, {sign}: {fault}" for fault in row.faults]
    if args.page:
        args.page.write_text(page_with_rows(args.page.read_text(), BEGIN, table, CASES))
    print(*faults, sep="\n", end="\n" * bool(faults), file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
