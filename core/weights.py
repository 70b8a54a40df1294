"""WeightStore: a model's constants, read where they lie, moved to a device when a kernel asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from core.allocator import DeviceAllocator
from core.backend import Backend, Kernel
from core.dtype import as_dtype, i4x2
from core.errors import CheckpointError
from core.tensor import Array, Tensor, TensorSpec


@dataclass(frozen=True)
class QuantizedLayout:
    """How a quantised matrix `w` is stored: as `w.codes`, `w.scales` and, if any, `w.zeros`."""

    bits: int
    group_size: int
    has_zeros: bool


class WeightStore:
    """Host arrays by name (memory-mapped ones stay so); device tensors, prepacked forms, cached."""

    def __init__(self, arrays: Mapping[str, Array],
                 quantized: Mapping[str, QuantizedLayout] | None = None) -> None:
        self.arrays = dict(arrays)
        self.quantized = dict(quantized or {})
        packed = {f"{name}.codes" for name, q in self.quantized.items() if q.bits == 4}
        self.dtypes = {name: i4x2 if name in packed else as_dtype(a.dtype)
                       for name, a in self.arrays.items()}
        self._tensors: dict[tuple[str, str], Tensor] = {}
        self._prepared: dict[tuple[Kernel, tuple[str, ...]], dict[str, Any]] = {}
        self._kept: list[Tensor] = []

    def add(self, name: str, array: Array) -> None:
        """One more constant, such as a table computed from the configuration."""
        self.arrays[name] = array
        self.dtypes[name] = as_dtype(array.dtype)

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def spec(self, name: str) -> TensorSpec:
        if name not in self.arrays:
            raise CheckpointError(f"weight {name!r} is missing; the checkpoint holds "
                                  f"{len(self.arrays)} tensors")
        return TensorSpec(self.arrays[name].shape, self.dtypes[name])

    def tensor(self, name: str, allocator: DeviceAllocator) -> Tensor:
        """The weight on the allocator's device: borrowed where the device reads host memory."""
        key = (name, allocator.device)
        if key not in self._tensors:
            self._tensors[key] = Tensor.from_numpy(self.arrays[name], allocator, self.dtypes[name],
                                                   copy=False)
        return self._tensors[key]

    def prepared(self, kernel: Kernel, backend: Backend, weights: Mapping[str, str],
                 ) -> dict[str, Any]:
        """What `kernel.prepare` makes of these weights (parameter -> name), made once."""
        key = (kernel, tuple(weights.values()))
        if key not in self._prepared:
            assert kernel.prepare is not None  # callers ask only then
            # not through tensor(): what prepare replaces need not stay on the device
            native = {p: backend.native(Tensor.from_numpy(
                self.arrays[n], backend.allocator, self.dtypes[n], copy=False))
                for p, n in weights.items()}
            self._prepared[key] = kernel.prepare(**native, empty=self._empty(backend))
        return self._prepared[key]

    def _empty(self, backend: Backend) -> Callable[..., Any]:
        def empty(shape: tuple[int, ...], dtype: str) -> Any:  # noqa: ANN401 - a native array
            tensor = Tensor.empty(shape, as_dtype(dtype), backend.allocator)
            self._kept.append(tensor)
            return backend.native(tensor)
        return empty

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in self.arrays.values())

    def close(self) -> None:
        """Let go of every tensor and of the host arrays."""
        self._tensors.clear()
        self._prepared.clear()
        self._kept.clear()
        self.arrays.clear()
