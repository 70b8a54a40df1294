"""Tensors: are views of a buffer with a shape, a dtype and strides. They have transfers and no
arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import index
from typing import Any

import numpy as np

from core.errors import BoundsError, ShapeError
from core.reading import shown
from core.tensor.allocator import Buffer, DeviceAllocator
from core.tensor.dtype import DType, as_dtype

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class TensorSpec:
    """Describes a tensor without its bytes: shape and dtype. Dimensions may be names in a graph."""

    shape: tuple[int | str, ...]
    dtype: DType

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Hold the shape as numbers. Raises ShapeError while a dimension is still a name."""
        numbers = tuple(d for d in self.shape if isinstance(d, int))
        if len(numbers) < len(self.shape):
            raise ShapeError(f"{self} has no size yet: bind its named dimensions first")
        return numbers

    @property
    def nbytes(self) -> int:
        """Return the bytes of a contiguous tensor. Raises ShapeError while a dimension is still a
        name."""
        return math.prod(self.sizes) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


class Tensor:
    """Views `buffer`: `shape` elements of `dtype`, `offset` bytes in, `strides` in elements."""

    def __init__(self, buffer: Buffer, shape: Sequence[int], dtype: DType, offset: int = 0,
                 strides: Sequence[int] | None = None) -> None:
        self.buffer, self.dtype, self.offset = buffer, dtype, offset
        try:
            self.shape = tuple(map(index, shape))
            self.strides = tuple(map(index, strides)) if strides is not None \
                else _row_major(self.shape)
            if not isinstance(buffer, Buffer) or not isinstance(dtype, DType):
                raise TypeError
            index(offset)
        except Exception:  # whatever a shape raises that is none
            raise ShapeError(f"shape {shown(shape)} with strides {shown(strides)} at byte "
                             f"{shown(offset)}, {shown(dtype)}: expected whole numbers, a DType "
                             "and a Buffer") from None
        if len(self.strides) != len(self.shape) or min(self.shape, default=0) < 0:
            raise ShapeError(f"shape {shown(self.shape)} with strides {shown(self.strides)} is "
                             "not a tensor")
        if (offset < 0 or min(self.strides, default=0) < 0
                or offset + self.extent > buffer.nbytes):
            raise BoundsError(f"tensor {self.spec} at byte {shown(offset)} needs "
                              f"{shown(offset + self.extent)} bytes, its buffer on {self.device} "
                              f"has {buffer.nbytes}")

    @classmethod
    def empty(cls, shape: Sequence[int], dtype: DType, allocator: DeviceAllocator) -> Tensor:
        """Return a new contiguous tensor; contents undefined."""
        return cls(allocator.allocate(math.prod(shape) * dtype.itemsize), shape, dtype)

    @classmethod
    def zeros(cls, shape: Sequence[int], dtype: DType, allocator: DeviceAllocator,
              guard: int = 0) -> Tensor:
        """Return a new contiguous tensor of zeros, with `guard` bytes before and after it."""
        buffer = allocator.allocate_zeroed(math.prod(shape) * dtype.itemsize + 2 * guard)
        return cls(buffer, shape, dtype, guard)

    @classmethod
    def from_numpy(cls, array: Array, allocator: DeviceAllocator, dtype: DType | None = None,
                   *, copy: bool = True) -> Tensor:
        """Return a tensor with the array's contents. `copy=False` shares host memory where
        possible."""
        dtype = dtype or as_dtype(array.dtype)
        contiguous = np.ascontiguousarray(array).reshape(array.shape)
        if not copy:
            borrowed = allocator.borrow_host(contiguous)
            if borrowed is not None:
                return cls(borrowed, array.shape, dtype)
        tensor = cls.empty(array.shape, dtype, allocator)
        if tensor.size:
            allocator.copy_from_host(tensor.buffer, contiguous)
        return tensor

    @property
    def spec(self) -> TensorSpec:
        return TensorSpec(self.shape, self.dtype)

    @property
    def device(self) -> str:
        return self.buffer.allocator.device

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def extent(self) -> int:
        """Return the bytes from the first element to the end of the last, gaps included."""
        if 0 in self.shape:
            return 0
        return (1 + sum([(d - 1) * s for d, s in zip(self.shape, self.strides, strict=True)])
                ) * self.dtype.itemsize

    @property
    def pointer(self) -> int:
        """Return the address of the first element."""
        _ = self.buffer.handle  # raises LifetimeError after free
        return self.buffer.pointer + self.offset

    @property
    def contiguous(self) -> bool:
        return self.size == 0 or self.strides == _row_major(self.shape)

    def view(self, *shape: int) -> Tensor:
        """Return the same elements in another shape. Raises ShapeError if strided or of another
        size."""
        if not self.contiguous or math.prod(shape) != self.size:
            raise ShapeError(f"cannot view {self.spec} (strides {self.strides}) as {shape}: "
                             "expected a contiguous tensor of the same number of elements")
        if shape == self.shape:
            return self
        return Tensor(self.buffer, shape, self.dtype, self.offset)

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows start..stop of the first axis, without a copy."""
        if not self.shape or not 0 <= start <= stop <= self.shape[0]:
            raise BoundsError(f"rows {start}..{stop} of {self.spec}")
        offset = self.offset + start * self.strides[0] * self.dtype.itemsize
        shape = (stop - start, *self.shape[1:])
        return Tensor(self.buffer, shape, self.dtype, offset, self.strides)

    def permute(self, *axes: int) -> Tensor:
        """Return the tensor with its axes in another order, without a copy."""
        if sorted(axes) != list(range(len(self.shape))):
            raise ShapeError(f"permute{axes} of a tensor with {len(self.shape)} axes")
        return Tensor(self.buffer, [self.shape[a] for a in axes], self.dtype, self.offset,
                      [self.strides[a] for a in axes])

    def numpy(self) -> Array:
        """Return the contents as a NumPy array: a view where the host can read them, else a
        copy."""
        host = self.buffer.allocator.host_view(self.buffer)
        if host is None:
            host, offset = np.empty(self.extent, np.uint8), 0
            self.buffer.allocator.copy_to_host(self.buffer, host, self.offset)
        else:
            _, offset = self.buffer.handle, self.offset
        width = self.dtype.itemsize
        return np.ndarray(self.shape, self.dtype.numpy, host, offset,
                          tuple([s * width for s in self.strides]))

    def write(self, array: Array) -> None:
        """Overwrite a contiguous tensor from a host array of the same shape and dtype."""
        if array.shape != self.shape or array.dtype != self.dtype.numpy or not self.contiguous:
            raise ShapeError(f"write: found {array.dtype}{list(array.shape)}, "
                             f"expected {self.spec} and a contiguous tensor")
        self.buffer.allocator.copy_from_host(self.buffer, np.ascontiguousarray(array), self.offset)

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, _, index = self.device.partition(":")
        return ({"cpu": 1, "cuda": 2}[kind], int(index or 0))

    def __dlpack__(self, **options: Any) -> Any:  # noqa: ANN401 - a PyCapsule has no type
        if self.buffer.allocator.host_view(self.buffer) is None:
            raise BufferError(f"a tensor on {self.device} is shared by __cuda_array_interface__")
        return self.numpy().__dlpack__(**options)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if not self.device.startswith("cuda"):
            raise AttributeError(f"a tensor on {self.device} is not CUDA memory")
        return {"shape": self.shape, "typestr": self.dtype.numpy.str, "version": 3,
                "data": (self.pointer, False),
                "strides": tuple(s * self.dtype.itemsize for s in self.strides)}

    def __repr__(self) -> str:
        return f"Tensor({self.spec} on {self.device})"


def _row_major(shape: Sequence[int]) -> tuple[int, ...]:
    strides, step = [], 1
    for d in reversed(shape):
        strides.append(step)
        step *= d
    return tuple(reversed(strides))
