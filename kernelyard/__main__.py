"""Runs `python -m kernelyard COMMAND`, and the console script `kernelyard`."""

from __future__ import annotations

import sys

from kernelyard._own import check_own


def main() -> int:
    """Run a command of `models`. Exit code 2 where another package shadows ours."""
    sys.argv[0] = "kernelyard"
    check_own("core", "models")
    from models.__main__ import main as command
    return int(command())


if __name__ == "__main__":
    sys.exit(main())
