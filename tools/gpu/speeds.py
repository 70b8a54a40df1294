"""Put the rows of `models.bench --json` into a GPU report: speeds.py REPORT ROWS..."""

import json
import sys
from pathlib import Path


def main(report: Path, rows: list[Path]) -> None:
    """Replace the report's speeds of the backends that the files hold any of."""
    found = json.loads(report.read_text())
    new = [row for path in rows if path.stat().st_size for row in json.loads(path.read_text())]
    measured = {row["backend"] for row in new}
    found["speeds"] = [r for r in found["speeds"] if r["backend"] not in measured] + new
    report.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(p) for p in sys.argv[2:]])
