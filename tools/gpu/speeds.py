"""Put the rows of `models.bench --json` into a GPU report: speeds.py REPORT ROWS..."""

import json
import sys
from pathlib import Path


def main(report: Path, rows: list[Path]) -> None:
    """Replace the report's speeds by those of the files that hold any."""
    found = json.loads(report.read_text())
    found["speeds"] = [row for path in rows if path.stat().st_size
                       for row in json.loads(path.read_text())]
    report.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(p) for p in sys.argv[2:]])
