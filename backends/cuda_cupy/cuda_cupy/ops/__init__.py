"""Fused ops that this backend brings: what a decode step of a Llama-like model repeats."""

from core.op import Op
from cuda_cupy.ops.cache import RopeKvWrite
from cuda_cupy.ops.products import AddNormGateUp, ThreeLinear
from cuda_cupy.ops.quantized import AddNormQuantizedGateUp, ThreeQuantized

FUSED: tuple[Op, ...] = (AddNormGateUp(), ThreeLinear(), ThreeQuantized(),
                         AddNormQuantizedGateUp(), RopeKvWrite())
