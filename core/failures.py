"""Names what fails in a kernel: node, op, kernel, distribution, dims, dtypes, the plugin's line.

Whatever a plugin's function raises becomes one KernelError. KeyboardInterrupt stays what it is, and
so does AllocationError: it is the machine that has too little memory.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from types import BuiltinFunctionType, FrameType
from typing import Any, NoReturn, Protocol

import numpy as np

from core import isolation
from core.errors import AllocationError, KernelError, worded
from core.ir.op import Op
from core.tensor.dtype import DType
from core.tensor.tensor import TensorSpec

_ONE, _SMALL, _SUBNORMAL = np.float32(1), np.float32(2**-26), np.float32(2**-140)


class Kernel(Protocol):
    """States what is used here of a `core.plugins.kernel.Kernel`."""

    @property
    def id(self) -> str: ...

    @property
    def bind(self) -> Callable[..., object]: ...


class Call(Protocol):
    """States what is used here of a `core.plugins.kernel.Call`."""

    @property
    def op(self) -> Op: ...

    @property
    def node(self) -> str: ...

    @property
    def dims(self) -> Mapping[str, int]: ...

    @property
    def dtypes(self) -> Mapping[str, DType]: ...


def who(kernel: Kernel, call: Call) -> str:
    """Describe a call: node (op), kernel (distribution and version), dimensions, dtypes."""
    op = call.op.name
    node = op if call.node in ("", op) else f"{call.node} ({op})"
    source = _distribution(_root(kernel))
    dims = dict.fromkeys([*(d for d in ("T", "S") if d in call.dims), *call.dims])
    return ", ".join([node, f"{kernel.id} ({source})" if source else kernel.id,
                      *(f"{d}={call.dims[d]}" for d in dims),
                      *(f"{var}={dtype}" for var, dtype in call.dtypes.items())])


def raise_named(error: BaseException, what: str, kernel: Kernel, call: Call) -> NoReturn:
    """Raise the KernelError that `what`, a function of the kernel, raised this error in this call.

    Raises `error` itself where it is nobody's fault, or has a name already.
    """
    if isinstance(error, (KeyboardInterrupt, AllocationError, KernelError)):
        raise error
    raise KernelError(f"{who(kernel, call)}: {what} raised {worded(error)}, at "
                      f"{_line(error, kernel)}") from error


@contextmanager
def naming(what: str, kernel: Kernel, call: Call) -> Iterator[None]:
    """Name what is raised meanwhile, and note the call where a process waits for this one. Raises
    KernelError where the modes of arithmetic are others afterwards."""
    notes = isolation.active
    if notes is not None:
        notes.enter(_note(what, kernel, call))
    before = modes()
    try:
        yield
        for said in changed_modes(before):
            raise KernelError(f"{who(kernel, call)}: {what} {said}, at {_definition(kernel)}")
    except BaseException as error:
        raise_named(error, what, kernel, call)
    finally:
        if notes is not None:
            notes.leave()


def modes() -> dict[str, object]:
    """Return how this thread computes: NumPy's error state, and whether the processor rounds to
    nearest and keeps small numbers."""
    up, below, tiny = _ONE + _SMALL, _ONE - _SMALL, _SUBNORMAL * _ONE
    return {"NumPy's error state": np.geterr(), "how the processor rounds": (up, below),
            "what the processor makes of subnormal numbers": tiny}


def changed_modes(before: Mapping[str, object]) -> list[str]:
    """Return a sentence for each of the `modes` that is another one now. NumPy's is put back."""
    now = modes()
    if now == before:
        return []
    np.seterr(**before["NumPy's error state"])  # type: ignore[arg-type]
    return [f"changed {what}, which is every kernel's" for what in before
            if now[what] != before[what]]


def ask(kernel: Kernel, what: str, call: Call, **more: Any) -> Any:  # noqa: ANN401 - by the hook
    """Call a kernel's `machine`, `supports`, `packs`, `workspace` or `prepare`. Raises KernelError
    for what it raises, and for a result of another type than the contract gives."""
    with naming(what, kernel, call):
        found = getattr(kernel, what)(*[call] * (what != "machine"), **more)
    wanted = _EXPECTED[what]
    if not wanted[0](found):
        raise KernelError(f"{who(kernel, call)}: {what}() returned {_short(found)}, expected "
                          f"{wanted[1]}")
    return found


def _packs(found: object) -> bool:
    return isinstance(found, Mapping) and all(
        isinstance(k, str) and isinstance(v, TensorSpec) for k, v in found.items())


_REASON: tuple[Callable[[object], bool], str] = (
    lambda x: x is None or (isinstance(x, str) and bool(x)), "None or the reason for refusing")
_EXPECTED: dict[str, tuple[Callable[[object], bool], str]] = {
    "machine": _REASON,
    "supports": _REASON,
    "packs": (_packs, "a TensorSpec by parameter name"),
    "workspace": (lambda x: isinstance(x, TensorSpec), "a TensorSpec"),
    "prepare": (lambda x: True, "anything")}


def bound(launch: object, kernel: Kernel, call: Call, wait: Callable[[], object],
          ) -> Callable[[], object]:
    """Return what a kernel's bind returned. Raises KernelError where it cannot be called.

    In a process that another waits for, each launch is noted and waited for by `wait`, so that what
    a device does later is this kernel's too.
    """
    if not callable(launch):
        raise KernelError(f"{who(kernel, call)}: bind returned {_short(launch)}, expected a "
                          f"callable without arguments, at {_definition(kernel)}")
    called: object = launch
    while isinstance(called, partial):
        called = called.func
    if not isinstance(called, BuiltinFunctionType) and (
            inspect.isgeneratorfunction(called) or inspect.iscoroutinefunction(called)):
        raise KernelError(f"{who(kernel, call)}: bind returned {_short(launch)}, which computes "
                          "nothing when it is called: it yields or is async, at "
                          f"{_definition(kernel)}")
    notes = isolation.active
    if notes is None:
        return launch
    note = _note("launch", kernel, call)

    def noted() -> None:
        notes.enter(note)
        try:
            launch()
            wait()
        finally:
            notes.leave()
    return noted


def captured(launch: Callable[[], object], nodes: int, backend: str) -> Callable[[], object]:
    """Return a captured step. What it raises names the step: its kernels run as one."""
    def step() -> None:
        try:
            launch()
        except (KeyboardInterrupt, KernelError):
            raise
        except BaseException as error:
            raise KernelError(
                f"the captured step of {nodes} kernels on {backend} raised {worded(error)}; "
                "--isolate runs its kernels one by one and names the one") from error
    return step


def _note(what: str, kernel: Kernel, call: Call) -> bytes:
    return isolation.Note(who(kernel, call), what, _home(kernel), kernel.id).encoded()


def _short(found: object) -> str:
    try:
        text = repr(found)
    except KeyboardInterrupt:
        raise
    except BaseException:  # what a plugin returns may not even be shown
        text = f"a {type(found).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _line(error: BaseException, kernel: Kernel) -> str:
    """Return FILE:LINE of the plugin's innermost line on the way to the error, else of the
    kernel."""
    home, place, trace = _home(kernel), "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if home and file.startswith(home):
            place = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place or _definition(kernel)


def place_in(frame: FrameType | None, kernel: Kernel) -> str:
    """Return FILE:LINE of the plugin's innermost line on a stack of frames, else of the kernel."""
    home = _home(kernel)
    while frame is not None and home:
        if frame.f_code.co_filename.startswith(home):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return _definition(kernel)


def _definition(kernel: Kernel) -> str:
    """Return FILE:LINE of the kernel's bind, "?" where Python does not know it."""
    code = getattr(inspect.unwrap(kernel.bind), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else "?"


def _root(kernel: Kernel) -> str:
    """Return the top-level package or module that the kernel comes from."""
    return str(getattr(inspect.unwrap(kernel.bind), "__module__", "")).partition(".")[0]


def _home(kernel: Kernel) -> str:
    """Return the folder of the kernel's package, with its separator, or the file of its module."""
    module = sys.modules.get(_root(kernel))
    for folder in getattr(module, "__path__", ()):
        return os.path.join(folder, "")
    return getattr(module, "__file__", None) or _definition(kernel).rpartition(":")[0]


@cache
def _distribution(root: str) -> str:
    """Return "distribution version" of the plugin whose entry point lies in this package."""
    from importlib import metadata  # brings `email`: not to every `import core`
    for entry in metadata.entry_points(group="kernelyard.plugins"):
        if entry.dist is not None and entry.value.partition(":")[0].partition(".")[0] == root:
            return f"{entry.dist.name} {entry.dist.version}"
    return ""
