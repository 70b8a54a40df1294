"""Runs `python -m kernelyard COMMAND`, and the console script `kernelyard`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from kernelyard._own import check_own


def main() -> int:
    """Run a command of `models`. Exit code 2 where another package shadows ours, 130 for Ctrl-C."""
    sys.argv[0] = "kernelyard"
    try:
        held = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if held:
            signal.signal(signal.SIGINT, _leave)
        check_own("core", "models")
        from models.__main__ import main as command
        if held:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return int(command())
    except KeyboardInterrupt:  # before the first line above, or after the last
        print("interrupted", file=sys.stderr)
        return 130


def _leave(*_: object) -> None:
    """End at once while modules are imported, when nothing is open: what NumPy imports from C makes
    an ImportError of a KeyboardInterrupt."""
    with contextlib.suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
