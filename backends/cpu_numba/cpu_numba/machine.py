"""Says what the machine can do that is compiled for."""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache

import llvmlite.binding
from numba import config

#: What products on AMX's tiles use: the tiles, and what packs bf16 for them.
_TILES = "amx-tile", "amx-bf16", "avx512bw", "avx512bf16"
#: Linux's system call arch_prctl, on x86-64, its request ARCH_REQ_XCOMP_PERM, and the state
#: XFEATURE_XTILEDATA (<asm/prctl.h>, Documentation/arch/x86/xstate.rst).
_ASK_FOR_TILES = 158, 0x1023, 18


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


@cache
def without_tiles() -> str | None:
    """Return why this process cannot use AMX's tiles; None if it can.

    Linux lets a process use them once it has asked. The permission holds for all its threads, those
    that run already too.
    """
    lacks = [feature for feature in _TILES if not has(feature)]
    if lacks:
        return f"needs a processor with {' and '.join(lacks)}, which {name()} lacks"
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return "needs Linux on x86-64, which gives processes AMX's tiles"
    if ctypes.CDLL(None, use_errno=True).syscall(*map(ctypes.c_long, _ASK_FOR_TILES)):
        return f"needs AMX's tiles, and the system refuses: {os.strerror(ctypes.get_errno())}"
    return None
