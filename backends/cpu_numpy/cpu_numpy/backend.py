"""The backend object: gives kernels NumPy arrays over host memory."""

from __future__ import annotations

import importlib
import importlib.util
import os
from functools import partial
from typing import Any

import numpy as np

from core import Backend, HostAllocator, Tensor
from core.errors import BackendError, missing_packages


class NumpyBackend(Backend):
    """Gives kernels `numpy.ndarray`s over host memory."""

    name = "cpu_numpy"

    def __init__(self, threads: int | None = None) -> None:
        """Raises BackendError where the number of threads cannot be set."""
        self.allocator = HostAllocator()
        if threads is not None:
            pools = _threadpoolctl()
            if pools is None:
                raise missing_packages(
                    "--threads: NumPy cannot set the threads of its BLAS by itself",
                    {"threadpoolctl": "pip install threadpoolctl, or set OPENBLAS_NUM_THREADS"},
                    BackendError)
            pools.threadpool_limits(threads, user_api="blas")

    def native(self, tensor: Tensor) -> Any:  # noqa: ANN401 - the ABC's signature
        return tensor.numpy()

    def read_bandwidth(self) -> float:
        return HostAllocator.read_bandwidth(
            lambda matrix, vector, out: partial(np.dot, matrix, vector, out))

    def describe(self) -> str:
        """Describe the backend; threadpoolctl adds the processor that the BLAS chose its kernels
        for."""
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[index, call-overload]
        pools = _threadpoolctl()
        found = [p for p in pools.threadpool_info() if p["user_api"] == "blas"] if pools else []
        how = "".join(f", kernels for {p.get('architecture')}, {p['num_threads']} threads"
                      for p in found[:1]) or f", {os.cpu_count()} cores"
        return f"NumPy {np.__version__} with {blas['name']} {blas['version']}{how}"


def _threadpoolctl() -> Any:  # noqa: ANN401 - a module, if it is installed
    found = importlib.util.find_spec("threadpoolctl")
    return found and importlib.import_module("threadpoolctl")
