"""The backend object: NumPy arrays over host memory."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from core.backend import Backend
from core.host import HostAllocator
from core.tensor import Tensor


class NumpyBackend(Backend):
    """Kernels get `numpy.ndarray`s over host memory."""

    name = "cpu_numpy"

    def __init__(self) -> None:
        self.allocator = HostAllocator()

    def native(self, tensor: Tensor) -> Any:  # noqa: ANN401 - the ABC's signature
        return tensor.numpy()

    def read_bandwidth(self) -> float:
        """By a matrix-vector product over 256 MiB: the best of five."""
        matrix = np.ones((32768, 2048), np.float32)
        vector, out = np.ones(2048, np.float32), np.empty(32768, np.float32)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            np.dot(matrix, vector, out=out)
            times.append(time.perf_counter() - start)
        return matrix.nbytes / min(times)

    def describe(self) -> str:
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[index, call-overload]
        return (f"NumPy {np.__version__} with {blas['name']} {blas['version']}, "
                f"{os.cpu_count()} cores")
