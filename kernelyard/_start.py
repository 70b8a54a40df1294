"""Ends a command at once on Ctrl-C while its modules are imported, when nothing is open yet.

`kernelyard` imports this module before any other, and every command imports `kernelyard` first.
A KeyboardInterrupt would be a traceback there, and NumPy's C code makes an ImportError of it. A
program that imports kernelyard as a library keeps its own handler.
"""

import os
import sys

OURS = ("kernelyard", "models")


def is_command() -> bool:
    """Tell whether this process is `python -m models.run` or the like, or the console script."""
    if sys.argv[:1] == ["-m"]:  # Python puts that there while it imports a module's package
        module = sys.orig_argv[-len(sys.argv)].removeprefix("-m")
        return module.partition(".")[0] in OURS
    return os.path.basename(sys.argv[0]).removesuffix(".exe") == "kernelyard" if sys.argv else False


def begin() -> None:
    """Let Ctrl-C end this process with one line and exit code 130, where Python has the say."""
    try:
        import signal
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _leave)
    except KeyboardInterrupt:
        _leave()


class Interruptible:
    """Lets Ctrl-C raise KeyboardInterrupt in the block, where `begin` was called before."""

    def __enter__(self) -> None:
        import signal
        self._began = signal.getsignal(signal.SIGINT) is _leave
        if self._began:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *_: object) -> None:
        import signal
        if self._began:
            signal.signal(signal.SIGINT, _leave)


def _leave(*_: object) -> None:
    try:
        os.write(2, b"interrupted\n")
    finally:  # standard error may be closed
        os._exit(130)


if is_command():
    begin()
