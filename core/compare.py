"""Comparing a kernel's output with the definition: error, budget and verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.dtype import DType
from core.tensor import Array


@dataclass(frozen=True)
class Tolerance:
    """How far a kernel may be from the float64 reference.

    The budget is `factor` × the error of the same-dtype reference (computed in float32, rounded to
    the dtype), and at least `ulps` × eps(dtype) of the largest expected value (for NMSE: its
    square). `exact` asks for equal bits.
    """

    factor: float
    ulps: float
    reason: str
    exact: bool = False


EXACT = Tolerance(0, 0, "moves or compares values without arithmetic", exact=True)


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


def compare(actual: Array, exact: Array, same: Array, dtype: DType, tolerance: Tolerance,
            ) -> Comparison:
    """Judge `actual` by the float64 result `exact` and the float32 reference's result `same`.

    Both references are rounded to `dtype` where that decides (bits, NaN and Inf patterns). Gates:
    the worst element, and the NMSE.
    """
    if actual.shape != exact.shape or actual.dtype != dtype.numpy:
        return _fail((), f"found {actual.dtype}{list(actual.shape)}, expected "
                         f"{dtype.numpy}{list(exact.shape)}")
    with np.errstate(all="ignore"):
        stored = exact.astype(dtype.numpy)
    if tolerance.exact or not dtype.is_float:
        return _compare_bits(actual, stored)
    a, x, s = (v.astype(np.float64) for v in (actual, exact, same.astype(dtype.numpy)))
    target = stored.astype(np.float64)
    odd = ~np.isfinite(target)
    wrong = np.where(odd, ~_same_bits(a, target), ~np.isfinite(a))
    if wrong.any():
        worst = tuple(int(i) for i in np.argwhere(wrong)[0])
        return _fail(worst, f"NaN or Inf pattern differs: found {a[worst]}, expected "
                            f"{target[worst]}")
    a, x, s = (np.where(odd, 0.0, v) for v in (a, x, s))
    error, allowed = _relative(a, x), _relative(s, x)
    if not error.size:
        return Comparison(True, 0.0, 0.0, 0.0, 0.0, (), "empty")
    nmse, same_nmse = _nmse(a, x), _nmse(s, x)
    floor = tolerance.ulps * dtype.eps
    budget = max(tolerance.factor * float(allowed.max()), floor)
    budget_nmse = max(tolerance.factor**2 * same_nmse, floor**2)
    worst = tuple(int(i) for i in np.unravel_index(int(error.argmax()), error.shape))
    used = max(float(error.max()) / budget, nmse / budget_nmse)
    detail = (f"found {a[worst]:.9g}, expected {x[worst]:.9g}; budget {budget:.2e} = max("
              f"{tolerance.factor:g} x {allowed.max():.2e} of the same-dtype reference, "
              f"{tolerance.ulps:g} ULP)")
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
