"""Runs a command in a process apart, so that a kernel that ends it or never returns is named."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from core import isolation
from core.errors import KernelError
from core.isolation import Notes, Watch, check_limit, ending, stop

#: sets the path before anything is imported from a folder
_CHILD = ("import sys; notes, module, cut, *rest = sys.argv[1:]; "
          "sys.path[:], sys.argv[1:] = rest[:int(cut)], rest[int(cut):]; "
          "from kernelyard._start import begin; begin(); "
          "from models.cli.isolated import child; sys.exit(child(notes, module))")
_ASK_S = 0.05  # seconds between two looks at the notes
_INTERRUPT_S = 1.0  # seconds that the process has to end by the Ctrl-C that it got too


def add_isolate_options(parser: argparse._ActionsContainer) -> None:
    """Add --isolate and --step-timeout."""
    parser.add_argument("--isolate", action="store_true", help="work in a process apart: a kernel "
                        "that crashes, ends Python or never returns is named, with exit code 3")
    parser.add_argument("--step-timeout", type=float, metavar="S", help="with --isolate: the "
                        f"seconds that one kernel may take (default: {isolation.TIMEOUT_S:g})")


def isolate(args: argparse.Namespace, module: str, argv: Sequence[str] | None) -> int | None:
    """Run a command in a process apart, if its options ask for that, and return its exit code.

    Returns None where the command is to go on in this process. Raises KernelError for a process
    that did not end as a command does, naming the step that it was in.
    """
    limit = check_limit(args.step_timeout, args.isolate)
    if not args.isolate or isolation.active is not None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        notes = Notes.create(Path(folder))
        given = list(sys.argv[1:] if argv is None else argv)
        process = subprocess.Popen([sys.executable, "-c", _CHILD, str(notes.path), module,
                                    str(len(sys.path)), *sys.path, *given])
        watch = Watch(notes, limit)
        late = _wait(process, watch)
        code = process.returncode
        if notes.ended and code >= 0:
            return code
        raise KernelError(notes.told(f"took over {watch.limit:g} s" if late else ending(code)))


def _wait(process: subprocess.Popen[bytes], watch: Watch) -> bool:
    """Wait for the process. Returns True if it was ended, since a step took too long.

    Raises KeyboardInterrupt where the process does not end by the Ctrl-C that both got.
    """
    interrupted = 0.0
    while True:
        try:
            process.wait(_ASK_S)
            return False
        except subprocess.TimeoutExpired:
            if watch.late():
                stop(process.pid, lambda seconds: _wait_for(process, seconds))
                process.wait()
                return True
            if interrupted and time.monotonic() - interrupted > _INTERRUPT_S:
                process.kill()
                process.wait()
                raise KeyboardInterrupt from None
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = time.monotonic()


def _wait_for(process: subprocess.Popen[bytes], seconds: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def child(path: str, module: str) -> int:
    """Run the command in this process, and note its steps in the file."""
    notes = isolation.begin(Path(path))
    code = 2
    try:
        code = importlib.import_module(module).main(sys.argv[1:])
    except SystemExit as left:  # argparse's
        code = left.code if isinstance(left.code, int) else 0 if left.code is None else 1
    finally:
        notes.end()
    return code
