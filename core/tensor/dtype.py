"""Defines the element types f32, f16, bf16, i8, i32 and packed 4-bit codes, with NumPy's names."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from core.errors import DtypeError
from core.reading import shown


@dataclass(frozen=True)
class DType:
    """Describes one element type. `mantissa` counts explicit mantissa bits (None for integers)."""

    name: str
    short: str
    numpy: np.dtype[np.generic]
    mantissa: int | None = None

    @property
    def itemsize(self) -> int:
        """Bytes an element; for `i4x2` an element is a byte that holds two codes."""
        return self.numpy.itemsize

    @property
    def is_float(self) -> bool:
        return self.mantissa is not None

    @property
    def eps(self) -> float:
        """Return distance from 1.0 to the next number above it (0 for integers)."""
        return 0.0 if self.mantissa is None else 2.0**-self.mantissa

    def __str__(self) -> str:
        return self.short


f32 = DType("float32", "f32", np.dtype(np.float32), 23)
f16 = DType("float16", "f16", np.dtype(np.float16), 10)
bf16 = DType("bfloat16", "bf16", np.dtype(ml_dtypes.bfloat16), 7)
i8 = DType("int8", "i8", np.dtype(np.int8))
i32 = DType("int32", "i32", np.dtype(np.int32))
#: Two unsigned 4-bit codes a byte, the lower index in the low nibble. Shapes count bytes.
i4x2 = DType("int4x2", "i4x2", np.dtype(np.uint8))

ALL = (f32, f16, bf16, i8, i32, i4x2)
_BY_NAME = {name: d for d in ALL for name in (d.name, d.short)}
_BY_NUMPY = {d.numpy: d for d in ALL}


def as_dtype(what: DType | str | np.dtype[np.generic]) -> DType:
    """Return the DType for a name ("f32", "float32"), a NumPy dtype or a DType. Raises
    DtypeError."""
    if isinstance(what, DType):
        return what
    try:
        found = _BY_NAME.get(what) if isinstance(what, str) else _BY_NUMPY.get(np.dtype(what))
    except (TypeError, ValueError, RecursionError):  # no description of a dtype
        found = None
    if found is None:
        known = ", ".join(d.name for d in ALL)
        said = what if isinstance(what, np.dtype) else shown(what)
        raise DtypeError(f"dtype {said} is not supported: expected one of {known}")
    return found
