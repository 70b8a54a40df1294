"""Comparing a kernel's output with the definition: error, budget and verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.dtype import DType, f32
from core.tensor import Array


@dataclass(frozen=True)
class Tolerance:
    """How far a kernel may be from the float64 reference.

    Arithmetic: `factor` × the error of the same computation in float32, and at least `ulps` × eps
    of float32 × the inputs' `condition`. A 16-bit result may add what rounding costs: `roundings` ×
    half an ULP in the worst element, and the same-dtype reference's own NMSE (× roundings²). Errors
    are relative to the largest expected value of a row. `exact` asks for equal bits instead.
    """

    factor: float
    ulps: float
    reason: str
    exact: bool = False
    roundings: float = 1.0


EXACT = Tolerance(0, 0, "moves or compares values without arithmetic", exact=True)

@dataclass(frozen=True)
class Expected:
    """What the definition says of one result: in float64, in float32, and as the dtype stores it
    with every intermediate rounded to the dtype too (what a chain of unfused kernels gives).
    `condition` is the op's, for these inputs."""

    exact: Array
    single: Array
    stored: Array
    dtype: DType
    condition: float = 1.0


#: Room for values that lie so near to a rounding boundary that float32 noise decides their side.
_NEAR_TIES = 1.05


@dataclass(frozen=True)
class Comparison:
    """How far `actual` is from the definition. `used` is the share of the budget: above 1 fails.

    max_rel is the worst element's error relative to the largest expected value of its row.
    """

    ok: bool
    used: float
    nmse: float
    max_abs: float
    max_rel: float
    worst: tuple[int, ...]
    detail: str

    def __str__(self) -> str:
        return (f"{self.detail}; NMSE {self.nmse:.2e}, max abs {self.max_abs:.2e}, max rel "
                f"{self.max_rel:.2e} at {list(self.worst)}, {self.used:.2f} of the budget")


def compare(actual: Array, expected: Expected, tolerance: Tolerance) -> Comparison:
    """Judge a kernel's result. Gates: the worst element, the NMSE, and the NaN and Inf pattern."""
    dtype, exact = expected.dtype, expected.exact
    if actual.shape != exact.shape or actual.dtype != dtype.numpy:
        return _fail((), f"found {actual.dtype}{list(actual.shape)}, expected "
                         f"{dtype.numpy}{list(exact.shape)}")
    with np.errstate(all="ignore"):
        stored = exact.astype(dtype.numpy)
    if tolerance.exact or not dtype.is_float:
        return _compare_bits(actual, stored)
    a, x, f, rounded = (v.astype(np.float64) for v in (actual, exact, expected.single,
                                                       expected.stored))
    target = stored.astype(np.float64)
    odd = ~np.isfinite(target)
    wrong = np.where(odd, ~_same_bits(a, target), ~np.isfinite(a))
    if wrong.any():
        worst = tuple(int(i) for i in np.argwhere(wrong)[0])
        return _fail(worst, f"NaN or Inf pattern differs: found {a[worst]}, expected "
                            f"{target[worst]}")
    a, x, f, rounded = (np.where(odd, 0.0, v) for v in (a, x, f, rounded))
    error = _relative(a, x)
    if not error.size:
        return Comparison(True, 0.0, 0.0, 0.0, 0.0, (), "empty")
    floor = tolerance.ulps * f32.eps * expected.condition
    arithmetic = max(tolerance.factor * float(_relative(f, x).max()), floor)
    budget, budget_nmse = arithmetic, max(tolerance.factor**2 * _nmse(f, x), floor**2)
    if dtype.itemsize == 2:
        rounding = tolerance.roundings * _NEAR_TIES
        budget += rounding * max(dtype.eps / 2, float(_relative(rounded, x).max()))
        budget_nmse += rounding**2 * _nmse(rounded, x)
    nmse = _nmse(a, x)
    worst = tuple(int(i) for i in np.unravel_index(int(error.argmax()), error.shape))
    tiny = float(np.finfo(np.float64).tiny)  # a tolerance of nothing is met by equal results only
    used = max(float(error.max()) / max(budget, tiny), nmse / max(budget_nmse, tiny))
    detail = (f"found {a[worst]:.9g}, expected {x[worst]:.9g}; budget {budget:.2e} of the row's "
              f"peak and NMSE {budget_nmse:.2e} (arithmetic in float32: {arithmetic:.2e})")
    return Comparison(used <= 1, used, nmse, float(abs(a - x).max()), float(error.max()), worst,
                      detail)


def _compare_bits(actual: Array, stored: Array) -> Comparison:
    equal = _same_bits(actual, stored)
    if equal.all():
        return Comparison(True, 0.0, 0.0, 0.0, 0.0, (), "equal bits")
    worst = tuple(int(i) for i in np.argwhere(~equal)[0])
    return _fail(worst, f"{int((~equal).sum())} of {equal.size} elements differ; found "
                        f"{actual[worst]}, expected {stored[worst]} (equal bits are required)")


def _same_bits(a: Array, b: Array) -> Array:
    """Equality in which NaN equals NaN."""
    with np.errstate(invalid="ignore"):
        equal: Array = (a == b) | ((a != a) & (b != b))
    return equal


def _relative(a: Array, x: Array) -> Array:
    error: Array = np.abs(a - x)
    if error.size:
        peak = np.abs(x).max(axis=-1, keepdims=True) if x.ndim else np.abs(x)
        error = error / np.where(peak > 0, peak, 1.0)
    return error


def _nmse(a: Array, x: Array) -> float:
    power = float(np.sum(x * x))
    return float(np.sum((a - x) ** 2)) / power if power > 0 else float(np.sum(a * a))


def _fail(worst: tuple[int, ...], detail: str) -> Comparison:
    return Comparison(False, float("inf"), float("inf"), float("inf"), float("inf"), worst, detail)
