"""Writes the tables of docs/performance.md and its plots from the records in docs/data.

    python tools/performance/page.py [--take FILE --into NAME [--commit COMMIT]] [--no-plots]

--take adds the records of a file that measure.py or compare.py has written to docs/data/NAME.jsonl,
in the place of older ones of the same subject. COMMIT is of the code that was measured, for records
that do not say it: a machine without a clone does not know it. Plots need the extra `plot`.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[2] / "tests/support"))
from pages import page_with
from performance.records import ROOT, Record, merged, read, write
from performance.tables import tables

from core.errors import InputError

DATA, PAGE, PLOTS = ROOT / "docs/data", ROOT / "docs/performance.md", ROOT / "docs/plots"


def every(folder: Path = DATA) -> list[Record]:
    """Return all committed records, file by file."""
    return [record for path in sorted(folder.glob("*.jsonl")) for record in read(path)]


def take(path: Path, into: Path, commit: str) -> None:
    """Add a file's records to a committed one. Raises InputError for one without a commit, and for
    one whose kernels were wrong."""
    new = [record if record.commit else replace(record, commit=commit) for record in read(path)]
    for record in new:
        if not record.commit:
            raise InputError(f"{path}: {record.command} says no commit; give it by --commit")
        if not record.ok:
            raise InputError(f"{path}: {record.command} has no verdict that counts: "
                             f"{record.verdict}; take its lines out")
    write(into, merged(read(into) if into.exists() else [], new))


def written(page: str, records: list[Record]) -> str:
    """Return the page's text with its tables anew."""
    for name, text in tables(records).items():
        page = page_with(page, f"<!-- {name}: python tools/performance/page.py -->\n", text)
    return page


def main() -> int:
    """Take in records, and write page and plots."""
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    p.add_argument("--take", type=Path, metavar="FILE", help="records to add")
    p.add_argument("--into", metavar="NAME", help="with --take: the file of docs/data")
    p.add_argument("--commit", default="", help="of records that say none")
    p.add_argument("--no-plots", action="store_true", help="tables alone")
    args = p.parse_args()
    if bool(args.take) != bool(args.into):
        p.error("--take and --into go together")
    try:
        if args.take:
            take(args.take, DATA / f"{args.into}.jsonl", args.commit)
        records = every()
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    PAGE.write_text(written(PAGE.read_text(), records))
    if not args.no_plots:
        from performance.plots import draw
        draw(records, PLOTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
