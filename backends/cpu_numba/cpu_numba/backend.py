"""The backend object: gives kernels NumPy arrays over host memory, in the form that compiled code
reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numba
import numpy as np

from core import Backend, HostAllocator, Tensor, bf16, f16
from core.errors import BackendError
from cpu_numba import caching, compiling, machine

#: Numba computes with neither 16-bit float, and here the integer type says which one the bits are.
WORDS = {f16: np.dtype(np.int16), bf16: np.dtype(np.uint16)}


class NumbaBackend(Backend):
    """Kernels get `numpy.ndarray`s; f16 comes as its bits in int16, bf16 as its bits in uint16."""

    name = "cpu_numba"

    def __init__(self, threads: int | None = None, spare: int = 0) -> None:
        """Raises BackendError for more threads than Numba starts, and in a forked process."""
        self.check_alive()
        self.allocator = HostAllocator()
        most = numba.config.NUMBA_NUM_THREADS
        if threads is not None and threads > most:
            raise BackendError(f"--threads {threads}: Numba starts at most {most}, one a core; ask "
                               "for no more, or set NUMBA_NUM_THREADS")
        cores = numba.config.NUMBA_DEFAULT_NUM_THREADS
        self.threads = threads or min(most, max(1, cores - spare))
        # GNU's OpenMP waits for work in a busy loop of 300,000 iterations: on a machine that others
        # use too that costs up to 16 ms a loop. After 2,000 iterations a thread often sleeps before
        # the other has done its share, and waking took a virtual machine a quarter of a decode step
        os.environ.setdefault("GOMP_SPINCOUNT", "50000")
        numba.set_num_threads(self.threads)  # starts them, once the variable is set
        self.ends_at_fork("its threads")  # GNU's OpenMP would end the child

    def native(self, tensor: Tensor) -> Any:  # noqa: ANN401 - the ABC's signature
        array = tensor.numpy()
        return array.view(WORDS[tensor.dtype]) if tensor.dtype in WORDS else array

    def settle(self) -> None:
        compiling.settle()

    def quantize(self, weight: np.ndarray, into: Any) -> np.ndarray | None:  # noqa: ANN401 - the ABC's
        from cpu_numba.quantizing import quantize
        return quantize(weight, into)

    def read_bandwidth(self) -> float:
        from cpu_numba.kernels.linear import linear_dot
        return HostAllocator.read_bandwidth(
            lambda matrix, vector, out: linear_dot(vector[None], matrix, None,
                                                                     out[None]))

    @classmethod
    def cache_folders(cls) -> list[Path]:
        return caching.KEPT.folders()

    def describe(self) -> str:
        return f"Numba {numba.__version__} for {machine.name()}, {self.threads} threads"
