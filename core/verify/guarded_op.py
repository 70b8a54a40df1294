"""Runs one op on arrays as `run_op` does, between guard bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.installed.registry import Registry, split_backends
from core.ir.op import Op
from core.plan.arena import GUARD, POISON
from core.plugins.kernel import Kernel
from core.runtime.run_op import read_results, single_op_plan
from core.tensor.allocator import ALIGNMENT
from core.tensor.dtype import DType
from core.tensor.tensor import Array, Tensor
from core.verify.guard import GuardedPlan, guarded_tensor
from core.verify.memory.before import Before
from core.verify.values import reversed_floats


@dataclass(frozen=True)
class OpRun:
    """Holds a call's results by name, None for an absent one; the kernels that made them; and a
    sentence for each rule that they broke."""

    results: dict[str, Array | None]
    kernels: list[Kernel]
    broken: list[str]


def run_guarded(op: Op, arrays: Mapping[str, Array | None], attrs: Mapping[str, Any], *,
                backend: str, registry: Registry, kernel: str | None = None,
                composed: bool = False, fill: int = POISON, again: bool = False,
                mapped: bool = False) -> OpRun:
    """Run an op by a kernel of `backend`; of a fused op the parts where `composed`.

    fill    the byte that outputs and workspace hold before each launch
    again   it has run before, with its inputs' floats in reverse
    mapped  weights lie as in a file's memory map, where the device reads host memory: read-only, at
            the lowest alignment that their elements allow
    Raises NoKernelError where no kernel takes the call.
    """
    allocator = registry.backend(split_backends(backend)[0]).allocator

    placed: list[tuple[Tensor, Array]] = []

    def place(name: str, array: Array, dtype: DType) -> Tensor:
        if mapped and name in op.weight_params:
            return Tensor.from_numpy(_as_mapped(array), allocator, dtype, copy=False)
        tensor = guarded_tensor(array.shape, dtype, allocator)
        array = np.ascontiguousarray(array).reshape(array.shape).view(dtype.numpy)
        tensor.write(array)
        if name not in op.weight_params:
            placed.append((tensor, array))
        return tensor
    plan = single_op_plan(op, arrays, attrs, backend=backend, kernel=kernel, registry=registry,
                          guard=GUARD, place=place, composed=composed)
    broken, guarded = [], GuardedPlan(plan, fill=fill)
    if again:
        for tensor, array in placed:
            tensor.write(np.ascontiguousarray(reversed_floats(array)))
        for binding, launch in guarded.walk():  # looked at too: modes that change stay changed
            broken += [f"{binding.kernel.id} {text}" for text in launch(True)]
        for tensor, array in placed:
            tensor.write(array)
    for binding, launch in guarded.walk():
        before = Before(launch.site, whole=True)
        broken += [f"{binding.kernel.id} {text}" for text in [*launch(True), *before.changed()]]
    results = dict(zip(op.result_names, read_results(plan, op), strict=True))
    return OpRun(results, [b.kernel for b in plan.bindings], list(dict.fromkeys(broken)))


def _as_mapped(array: Array) -> Array:
    """Copy an array to a place that only its own elements are aligned to, and make it read-only."""
    memory = np.empty(array.nbytes + 2 * ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT + array.itemsize
    copied = memory[start:start + array.nbytes].view(array.dtype).reshape(array.shape)
    copied[...] = array
    copied.setflags(write=False)
    return copied
