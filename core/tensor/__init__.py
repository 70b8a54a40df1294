"""Holds numbers in memory: dtypes, tensors, allocators."""

from core.tensor.tensor import Array, Tensor, TensorSpec

__all__ = ["Array", "Tensor", "TensorSpec"]
