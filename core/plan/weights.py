"""WeightStore: reads a model's constants where they lie, and moves one to a device when a kernel
asks for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from core.errors import CheckpointError
from core.failures import ask
from core.ops.quantized.layouts import Layout, part_names
from core.plugins.backend import Backend
from core.plugins.kernel import Call, Kernel
from core.tensor.allocator import DeviceAllocator
from core.tensor.dtype import as_dtype
from core.tensor.host import HostAllocator
from core.tensor.tensor import Array, Tensor, TensorSpec

#: Called with what is being done to weights, and the bytes done and in total.
Progress = Callable[[str, int, int], None]


def no_progress(what: str, done: int, total: int) -> None:
    """Ignore progress."""


def prepared_key(kernel: Kernel, call: Call, weights: Mapping[str, str]) -> tuple[object, ...]:
    """Return a key that is equal for nodes that share one set of prepacked weights."""
    return (kernel.prepare, kernel.backend, *sorted(call.attrs.items()), *weights.items())


class WeightStore:
    """Hold host arrays by name (memory-mapped ones stay so), and cache device tensors and prepacked
    forms.

    moves  a CPU's kernels get weights in its allocator's memory, whose pages are large and aligned,
           instead of a file's memory map
    """

    moves = False

    def __init__(self, arrays: Mapping[str, Array],
                 quantized: Mapping[str, Layout] | None = None,
                 progress: Progress = no_progress) -> None:
        self.arrays = dict(arrays)
        self.quantized = dict(quantized or {})
        self.dtypes = {name: as_dtype(a.dtype) for name, a in self.arrays.items()}
        self._tensors: dict[tuple[str, str], Tensor] = {}
        self._natives: dict[tuple[str, Backend, tuple[int, ...]], Any] = {}
        self._prepared: dict[tuple[object, ...], dict[str, Any]] = {}
        self._packed: dict[tuple[object, ...], dict[str, Tensor]] = {}
        self._progress, self._prepared_bytes = progress, 0

    def add(self, name: str, array: Array) -> None:
        """Add a constant, such as a table computed from the configuration."""
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
        """Return the weight on the allocator's device: borrowed, or moved, where it reads host
        memory."""
        key = (name, allocator.device)
        if key not in self._tensors:
            moves = self.moves and allocator.device == HostAllocator.device
            tensor = Tensor.from_numpy(self.arrays[name], allocator, self.dtypes[name], copy=moves)
            if moves:
                self.arrays[name] = tensor.numpy()  # lets go of the other
                self._told(tensor.nbytes)
            self._tensors[key] = tensor
        return self._tensors[key]

    def native(self, name: str, backend: Backend, sizes: tuple[int, ...]) -> Any:  # noqa: ANN401 - as its kernels take it
        """Return the weight on the backend's device, in this shape, as the backend's array."""
        key = (name, backend, sizes)
        if key not in self._natives:
            self._natives[key] = backend.native(self.tensor(name, backend.allocator).view(*sizes))
        return self._natives[key]

    def held(self, name: str, device: str) -> Tensor | None:
        """Return the weight's tensor on a device, None where it has none: prepare replaced it."""
        return self._tensors.get((name, device))

    def _told(self, nbytes: int) -> None:
        self._prepared_bytes += nbytes
        self._progress("preparing weights", self._prepared_bytes,
                       max(self.nbytes, self._prepared_bytes))

    def put(self, name: str, tensor: Tensor) -> None:
        """Use this tensor for the weight on its device."""
        self._tensors[name, tensor.device] = tensor
        self._natives.clear()

    def prepared(self, kernel: Kernel, backend: Backend, call: Call, weights: Mapping[str, str],
                 ) -> dict[str, Any]:
        """Return the native arrays that `kernel.prepare` fills from these weights (parameter ->
        name), filled once: kernels that prepare alike, with equal attributes, share the result."""
        key = prepared_key(kernel, call, weights)
        if key not in self._prepared:
            assert kernel.prepare is not None and kernel.packs is not None  # callers ask only then
            device = backend.allocator.device
            packed = {p: Tensor.empty(spec.sizes, spec.dtype, backend.allocator)
                      for p, spec in ask(kernel, "packs", call).items()}
            self._packed[key] = packed
            # not through tensor(): what prepare replaces need not stay on the device
            given = {p: self._tensors.get((n, device)) or Tensor.from_numpy(
                self.arrays[n], backend.allocator, self.dtypes[n], copy=False)
                for p, n in weights.items()}
            filled = {p: backend.native(t) for p, t in packed.items()}
            ask(kernel, "prepare", call, packed=filled,
                **{p: backend.native(t) for p, t in given.items()})
            self._prepared[key] = filled
            self._told(sum(self.arrays[n].nbytes for n in weights.values()))
        return self._prepared[key]

    def packed(self, kernel: Kernel, call: Call, weights: Mapping[str, str]) -> dict[str, Tensor]:
        """Return the tensors behind what `prepared` returned for these, by parameter."""
        return self._packed.get(prepared_key(kernel, call, weights), {})

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in self.arrays.values())

    def described(self) -> str:
        """Name the dtypes of the matrices, the largest share first: "int8, f32"."""
        bits = {part_names(name, q)[0]: f"int{q.bits}" for name, q in self.quantized.items()}
        size: Counter[str] = Counter()
        for name, array in self.arrays.items():
            size[bits.get(name, self.dtypes[name].short)] += array.nbytes
        return ", ".join(kind for kind, _ in size.most_common())

    def close(self) -> None:
        """Let go of every tensor and of the host arrays."""
        self._tensors.clear()
        self._natives.clear()
        self._prepared.clear()
        self._packed.clear()
        self.arrays.clear()
