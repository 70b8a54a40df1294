"""Prepares launches through PyCUDA when a kernel binds: each is then one call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from pycuda import driver

from core import Tensor, cuda
from core.errors import BackendError
from cuda_pycuda import compiler
from cuda_pycuda.compiler import sources
from cuda_pycuda.device import device
from cuda_pycuda.device import gpu as one_gpu

_TYPES = {"f32": "float", "f16": "f16", "bf16": "bf16", "i8": "i8"}


class Counters:
    """Holds zeros by which the blocks of a launch count themselves; each launch leaves them
    zero."""

    def __init__(self, count: int) -> None:
        gpu, nbytes = device(), 4 * max(1, count)
        with one_gpu:
            memory = gpu.pool.allocate(nbytes)
            self.pointer, self._memory = int(memory), cuda.Held(one_gpu, memory)
            driver.memset_d8_async(self.pointer, 0, nbytes, gpu.stream)


def c_type(tensor: Tensor) -> str:
    """Return the C type of a tensor's elements, as `cuda/numbers.cuh` names it."""
    return _TYPES[tensor.dtype.short]


@cache
def _module(file: str, defines: tuple[tuple[str, object], ...]) -> Any:  # noqa: ANN401 - PyCUDA's
    code = sources.cubin(file, dict(defines), device().target, compiler.compiler())
    with one_gpu:
        return one_gpu.keep(driver.module_from_buffer(code))


def launch(file: str, entry: str, grid: Sequence[int], threads: int, arguments: Sequence[Any], *,
           defines: cuda.Defines | None = None) -> cuda.Launch:
    """Compile, load and prepare the kernel `entry` of `cuda/<file>`; the result launches it.

    arguments  tensors and Counters (by address; None is a null pointer), ints, Longs, floats
    """
    if 0 in grid:
        return cuda.nothing
    module = _module(file, tuple(sorted((defines or {}).items())))
    kinds, values = zip(*map(_pack, arguments), strict=True)
    with one_gpu:
        function = module.get_function(entry)
        function.prepare(list(kinds))
    call, stream = function.prepared_async_call, device().stream
    blocks, block = (*grid, *(1,) * (3 - len(grid))), (threads, 1, 1)
    kept = arguments  # what the addresses point to

    def run() -> None:
        try:
            call(blocks, block, stream, *values)
        except driver.Error as error:
            raise BackendError(f"cuda_pycuda: launching {entry} of {file} with grid {blocks} x "
                               f"{threads} threads failed: {error}") from error
    run.kept = kept  # type: ignore[attr-defined]
    return run


def _pack(value: Any) -> tuple[str, Any]:  # noqa: ANN401 - any argument
    """Return (the letter by which Python's struct packs it, the number)."""
    if value is None:
        return "P", 0
    if isinstance(value, cuda.Long):
        return "q", int(value)
    if isinstance(value, int):
        return "i", int(value)
    if isinstance(value, float):
        return "f", value
    return "P", value.pointer
