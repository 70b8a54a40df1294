"""python -m kernelyard COMMAND, and the console script `kernelyard`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run a command of `models`. Exit code 2 where another package shadows ours."""
    from kernelyard._own import check_own
    try:
        check_own("core", "models")
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from models.__main__ import main as command
    return int(command())


if __name__ == "__main__":
    sys.exit(main())
