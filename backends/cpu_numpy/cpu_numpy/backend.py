"""The backend object: NumPy arrays over host memory."""

from __future__ import annotations

import os
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

    def describe(self) -> str:
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[index, call-overload]
        return (f"NumPy {np.__version__} with {blas['name']} {blas['version']}, "
                f"{os.cpu_count()} cores")
