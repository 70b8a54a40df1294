"""Quantises weights while a model loads, on all threads."""

from __future__ import annotations

from typing import Any

import numpy as np

from core import bf16, f16
from cpu_numba.compiling import bound, settle
from cpu_numba.kernels.compiled import quantize as compiled
from cpu_numba.kernels.flat import flat

_LANES = 16
#: by bits, symmetric: where codes count from, and the steps of a group's range
_RANGES = {(8, True): (0, 127), (8, False): (-127, 254), (4, True): (8, 7), (4, False): (0, 15)}
_WORDS = {bf16.numpy: np.uint16, f16.numpy: np.int16, np.dtype(np.float32): np.float32}


def quantize(weight: np.ndarray, into: Any) -> np.ndarray | None:  # noqa: ANN401 - core's Quantized
    """Serve as `Backend.quantize`: of matrices in whole groups of whole vectors."""
    if (weight.dtype not in _WORDS or not weight.flags.c_contiguous or not weight.size
            or weight.shape[1] % into.group_size or into.group_size % _LANES):
        return None
    left = np.zeros(len(weight), np.uint8)
    lowest, steps = _RANGES[into.bits, into.zeros is None]
    launch = bound(compiled.quantize, flat(weight.view(_WORDS[weight.dtype])), flat(into.codes),
                   flat(into.scales), flat(into.zeros), left, weight.shape[1], into.group_size,
                   np.float32(lowest), np.float32(steps))
    settle()  # it compiles with a word about it
    launch()
    return left.view(bool)
