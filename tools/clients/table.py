"""Writes tables into docs/server.md; run by itself, that of the rows that run.sh has left.

    python tools/clients/table.py FOLDER CLIENT ...

Exit code 1: a client failed, or has no row.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/server.md"


def write(name: str, lines: Sequence[str]) -> None:
    """Replace what the page has between `<!-- NAME: … -->` and `<!-- NAME end -->`."""
    text = PAGE.read_text()
    found = re.search(rf"(<!-- {name}: .*? -->\n).*?(<!-- {name} end -->\n)", text, re.S)
    if found is None:
        raise SystemExit(f"{PAGE} has no place for the table {name}")
    PAGE.write_text(text[:found.end(1)] + "\n".join(lines) + "\n" + text[found.start(2):])


def main() -> int:
    folder, *clients = sys.argv[1:]
    rows, failed = ["| client | version | what was done | result |", "|---|---|---|---|"], False
    for name in clients:
        file = Path(folder) / f"{name}.tsv"
        fields = (file.read_text().rstrip("\n").split("\t") if file.exists()
                  else [name, "-", "-", "not tried"])
        failed |= fields[3] != "pass"
        rows.append("| " + " | ".join(field.replace("|", "\\|") for field in fields) + " |")
    write("clients", rows)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
