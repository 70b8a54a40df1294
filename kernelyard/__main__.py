"""Runs `python -m kernelyard COMMAND`, and the console script `kernelyard`."""

from __future__ import annotations

import sys

from kernelyard._own import check_own


def main() -> int:
    """Run a command of `models`. Exit code 2 where another package shadows ours, 130 for Ctrl-C."""
    sys.argv[0] = "kernelyard"
    try:
        check_own("core", "models")
        from models.__main__ import main as command
        return int(command())
    except KeyboardInterrupt:  # while modules are imported
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
