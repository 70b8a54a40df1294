"""End every command in one way: one message and an exit code, whatever stood in the way."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

from core.errors import CheckError, KernelError, KernelyardError
from kernelyard._start import Interruptible
from models.cli.console import tell
from models.cli.streams import settle_streams
from models.engine.generate import Generation

P = ParamSpec("P")


def command(main: Callable[P, int]) -> Callable[P, int]:
    """Run `main`, but with exit code 1 for a failed check, 2 for input or output that cannot be
    used, 3 for a kernel that failed, 130 when interrupted, 0 when the reader of the output has
    gone, as in `| head`; without a traceback."""
    @functools.wraps(main)
    def ending(*args: P.args, **kwargs: P.kwargs) -> int:
        settle_streams()
        if sys.stdout is None:
            return _say("error: standard output is closed; send it to a file or to /dev/null", 2)
        try:
            with Interruptible():
                return _ended(lambda: main(*args, **kwargs))
        except KeyboardInterrupt:  # where the block begins or ends
            return _say("interrupted", 130)
    return ending


def _ended(main: Callable[[], int]) -> int:
    try:
        try:
            code = main()
        except SystemExit as stop:
            if isinstance(stop.__context__, BrokenPipeError):  # rich's way to end then, with 1
                return 0
            sys.stdout.flush()  # argparse has said something
            raise
        sys.stdout.flush()  # while it can still be said that it cannot be written
        return code
    except BrokenPipeError:
        code = 0
    except KeyboardInterrupt:
        code = _say("interrupted", 130)
    except CheckError as error:
        code = _say(f"error: {error}", 1)
    except KernelError as error:
        code = _say(f"error: {error}", 3)
    except (KernelyardError, OSError) as error:
        code = _say(f"error: {error}", 2)
    _let_go()
    return code


def interrupted(generation: Generation, show: Callable[[str], object]) -> bool:
    """Stream a generation; True where Ctrl-C ended it, with what it had until then shown."""
    try:
        generation.stream(show)
    except KeyboardInterrupt:
        return True
    return False


def _say(what: str, code: int) -> int:
    tell(what)
    return code


def _let_go() -> None:
    """Python writes at exit what is still buffered; where that fails the exit code would be 120
    (https://docs.python.org/3/library/signal.html#note-on-sigpipe)."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
