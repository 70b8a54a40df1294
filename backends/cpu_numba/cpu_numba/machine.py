"""Says what the machine can do that is compiled for."""

from __future__ import annotations

import llvmlite.binding
from numba import config


def name() -> str:
    """Return LLVM's name of the processor, such as "znver4"."""
    return config.CPU_NAME or llvmlite.binding.get_host_cpu_name()


def has(feature: str) -> bool:
    """Return whether it has an instruction set, by LLVM's name for it, such as "avx512f".

    NUMBA_CPU_FEATURES counts here as it does for Numba itself, so that the kernels of a lesser
    machine can be tested on this one.
    """
    if config.CPU_FEATURES is not None:
        return f"+{feature}" in config.CPU_FEATURES.split(",")
    return bool(llvmlite.binding.get_host_cpu_features().get(feature, False))
