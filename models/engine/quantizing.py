"""Lets a backend quantise weights while they load."""

from __future__ import annotations

import numpy as np

from core.errors import BackendError, worded
from core.ops.quantized.quantize import Filler, Quantized
from core.plugins.backend import Backend
from core.tensor.tensor import Array


def quantizer(name: str, backend: Backend) -> Filler:
    """Return `Backend.quantize`. What it raises, or returns wrongly, is a BackendError that names
    the backend, by `name`, and the matrix."""
    def fill(weight: Array, into: Quantized) -> Array | None:
        what = f"{name}: quantize of a matrix {weight.shape} of {weight.dtype}"
        fix = "; fix: report it to the backend's authors, or leave --quantize out"
        try:
            left = backend.quantize(weight, into)
        except Exception as error:
            raise BackendError(f"{what} raised {worded(error)}{fix}") from error
        if left is not None and not (isinstance(left, np.ndarray) and left.shape == weight.shape[:1]
                                     and left.dtype.kind in "bu"):
            raise BackendError(f"{what} returned a {type(left).__name__}, expected None or "
                               f"bool [{len(weight)}], the rows that are left{fix}")
        return left
    return fill
