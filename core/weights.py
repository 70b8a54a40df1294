"""WeightStore: a model's constants, read where they lie and moved to a device when a kernel asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from core.allocator import DeviceAllocator
from core.backend import Backend, Kernel
from core.dtype import DType, as_dtype
from core.errors import CheckpointError
from core.tensor import Array, Tensor, TensorSpec


class WeightStore:
    """Host arrays by name (memory-mapped ones stay so); device tensors and prepacked forms, cached."""

    def __init__(self, arrays: Mapping[str, Array], dtypes: Mapping[str, DType] | None = None) -> None:
        """`dtypes` names the arrays whose NumPy dtype does not say it: packed 4-bit codes."""
        self.arrays = dict(arrays)
        self.dtypes = {name: (dtypes or {}).get(name) or as_dtype(a.dtype)
                       for name, a in self.arrays.items()}
        self._tensors: dict[tuple[str, str], Tensor] = {}
        self._prepared: dict[tuple[Kernel, tuple[str, ...]], dict[str, Any]] = {}
        self._kept: list[Tensor] = []

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
            native = {p: backend.native(self.tensor(n, backend.allocator))
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
