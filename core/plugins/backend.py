"""Define what a backend package gives beside kernels: a light description and a device."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from core.errors import BackendError, OptionError
from core.ops.quantized.quantize import Quantized
from core.reading import shown
from core.tensor.allocator import DeviceAllocator
from core.tensor.dtype import DType, f32
from core.tensor.tensor import Array, Tensor

#: The plugin contract's versions that this core serves; docs/plugin-api.md says what each holds
API_VERSION, OLDEST_API = 2, 1

Launch = Callable[[], object]
T = TypeVar("T")


@dataclass(frozen=True)
class BackendOptions:
    """Hold what a user may ask of backends as they open; None leaves it to the backend.

    device      which of the machine's devices, counted from 0
    threads     of the CPU, for kernels
    allow_tf32  products of f32 values may round their inputs to TF32 (10 bits of mantissa)
    spare       cores for other work, where kernels' threads wait for one another in busy loops

    Raises OptionError for a value that no backend could take.
    """

    device: int | None = None
    threads: int | None = None
    allow_tf32: bool | None = None
    spare: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("device", 0), ("threads", 1), ("spare", 1)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < least):
                raise OptionError(f"--{name} {shown(value)}: expected a whole number, at least "
                                  f"{least}")

    def given(self) -> dict[str, int | bool]:
        """Return the options that were set."""
        return {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}


@dataclass(frozen=True)
class BackendSpec:
    """Describe a backend before it is used. `target` is "module:attribute", imported on first use.

    `requires` maps each module that must be importable to the line that installs it. `options`
    names the fields of `BackendOptions` that the backend takes: those that the user set are
    passed to `target` as keywords.
    """

    name: str
    device: str
    target: str
    description: str
    requires: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()


class Backend(ABC):
    """Serve as a backend in use. `__init__` raises `BackendError` with the fix where it cannot
    run."""

    name: str
    allocator: DeviceAllocator

    @abstractmethod
    def native(self, tensor: Tensor) -> Any:  # noqa: ANN401 - numpy.ndarray, cupy.ndarray, ...
        """Return the tensor as the array type that this backend's kernels take, without a copy."""

    @classmethod
    def activation_dtype(cls, stored: DType) -> DType:
        """Return the activations' dtype when the user names none and the checkpoint stores
        `stored`."""
        return f32

    #: tokens of a prompt computed at once beyond which its products gain nothing
    prompt_chunk = 512

    #: decode steps in flight: more than 1 hides the host's time where launches are asynchronous
    run_ahead = 1

    def read_later(self, tensor: Tensor) -> Callable[[], Array]:
        """Queue a read of a small tensor's present value; the result waits for it."""
        value = np.array(tensor.numpy())
        return lambda: value

    #: the CUDA stream, as a number, on which all work of this backend is queued; None without one
    stream: int | None = None

    def after(self, other: Backend) -> Launch:
        """Return what makes this backend's next work wait for all that `other` has queued by then.
        Both use one device. By default the host waits."""
        return other.allocator.synchronize

    def quantize(self, weight: Array, into: Quantized) -> Array | None:
        """Fill `into` while a model loads, with the bits of `core.ops.quantized.quantize`.

        Return which rows are left to that, bool [N], or None: all of them, as by default.
        """
        return None

    def settle(self) -> None:  # noqa: B027 - most backends have nothing left to do
        """Do at once what kernels left for when all of a plan are bound, such as compiling."""

    def capture(self, launch: Launch) -> Launch:
        """Record a step that will run many times for cheap replay (a CUDA graph).

        It must not compute anything now: the KV cache and the step's inputs are live. By default
        the step itself.
        """
        return launch

    def read_bandwidth(self) -> float | None:
        """Measure how many bytes a second a kernel of this backend reads from a large array; None
        if it cannot say. The bench states decode speed as a share of it."""
        return None

    def sources(self) -> Mapping[str, Path]:
        """Return kernel source files by a stable name, for the record of what a test run has
        covered."""
        return {}

    @classmethod
    def cache_folders(cls) -> list[Path]:
        """List the existing folders in which this backend keeps what it compiled."""
        return []

    #: why this process can use the backend no longer, with the fix; empty as long as it can
    lost = ""

    @classmethod
    def ends_at_fork(cls, held: str) -> None:
        """Have `lost` say, in every process forked from now on, that `held` stays with the parent.
        A backend calls this once it holds what no child inherits, such as "its threads"."""
        def in_child() -> None:
            cls.lost = lost_by_fork(cls.name, held)
        if hasattr(os, "register_at_fork") and not cls.__dict__.get("_watched"):
            cls._watched = True
            os.register_at_fork(after_in_child=in_child)

    _watched = False

    def check_alive(self) -> None:
        """Raise BackendError where `lost` says something. Every prompt and step asks."""
        if self.lost:
            raise BackendError(self.lost)

    def in_any_thread(self, launch: Callable[[], T]) -> Callable[[], T]:
        """Return a launch of this backend's work that any thread may call. By default itself."""
        return launch

    def describe(self) -> str:
        """Describe the backend in one line: the library, its version and the device."""
        return self.name


def lost_by_fork(name: str, held: str) -> str:
    """Say that a forked process cannot use the backend, as `held` stay with its parent."""
    return (f"backend {name} cannot be used in a forked process: {held} stay with its parent; "
            "fix: start processes with multiprocessing.get_context('spawn')")
