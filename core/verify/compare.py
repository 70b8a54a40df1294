"""Compares a kernel's result with the reference: error, budget and verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from core.ir.tolerance import Tolerance
from core.tensor.dtype import DType, f32
from core.tensor.tensor import Array


@dataclass(frozen=True)
class Expected:
    """Holds the reference of one result: in float64, in float32, and in float32 with every
    intermediate rounded to the result's dtype (as a chain of unfused kernels computes it).
    `condition` is the op's, for these inputs."""

    exact: Array
    single: Array
    stored: Array
    dtype: DType
    condition: float = 1.0

    @property
    def rounded(self) -> Array:
        """Return the float64 result as the dtype stores it."""
        with np.errstate(all="ignore"):
            return self.exact.astype(self.dtype.numpy)

    @property
    def overflowed(self) -> Array:
        """Mark the elements that are finite, but that the definition itself cannot compute in
        float32, or with intermediates of the result's dtype: no kernel is judged by them."""
        single, stored = np.isfinite(self.single), np.isfinite(self.stored.astype(np.float64))
        marked: Array = np.isfinite(self.exact) & ~(single & stored)
        return marked & (~single | np.isfinite(self.rounded.astype(np.float64)))


_TINY = float(np.finfo(np.float64).tiny)  # a tolerance of nothing is met by equal results only
#: Room for values that lie so near to a rounding boundary that float32 noise decides their side.
_NEAR_TIES = 1.05


@dataclass(frozen=True)
class Comparison:
    """Holds how far a result is from the reference, `used` as a share of the budget: above 1 fails.

    max_rel is the worst element's error relative to the largest expected value of its row.
    `unjudged` counts the elements at which the definition itself overflows.
    """

    ok: bool
    used: float
    nmse: float
    max_abs: float
    max_rel: float
    worst: tuple[int, ...]
    detail: str
    unjudged: int = 0

    def __str__(self) -> str:
        return (f"{self.detail}; NMSE {self.nmse:.2e}, max abs {self.max_abs:.2e}, max rel "
                f"{self.max_rel:.2e} at {list(self.worst)}, {self.used:.2f} of the budget")


_EQUAL = Comparison(True, 0.0, 0.0, 0.0, 0.0, (), "equal bits")


@dataclass(frozen=True)
class Budget:
    """Bounds an error: by `peak` × the largest value of its row, and by `nmse` over the whole.

    `arithmetic` is the part of `peak` that float32 arithmetic may take. `exact`: equal bits.
    """

    peak: float
    nmse: float
    arithmetic: float
    exact: bool = False

    def __mul__(self, by: float) -> Budget:
        return Budget(self.peak * by, self.nmse * by**2, self.arithmetic * by, self.exact)


def budget_of(expected: Expected, tolerance: Tolerance) -> Budget:
    """Return the budget that a tolerance gives a kernel for one result."""
    dtype = expected.dtype
    if tolerance.exact or not dtype.is_float:
        return Budget(0, 0, 0, exact=True)
    with np.errstate(all="ignore"):
        odd = ~np.isfinite(expected.rounded.astype(np.float64)) | expected.overflowed
    x, f, rounded = (np.where(odd, 0.0, v.astype(np.float64)) for v in (
        expected.exact, expected.single, expected.stored))
    floor = tolerance.ulps * f32.eps * expected.condition
    arithmetic = max(tolerance.factor * float(_relative(f, x).max(initial=0)), floor)
    peak, nmse = arithmetic, max(tolerance.factor**2 * _nmse(f, x), floor**2)
    if dtype.itemsize == 2:
        rounding = tolerance.roundings * _NEAR_TIES
        peak += rounding * max(dtype.eps / 2, float(_relative(rounded, x).max(initial=0)))
        nmse += rounding**2 * _nmse(rounded, x)
    return Budget(peak, nmse, arithmetic)


@cache
def least_budget(tolerance: Tolerance, dtype: DType) -> Budget:
    """Return the least budget that a tolerance can give, without computing the reference.

    16-bit: an error uniform within half an ULP, of mantissas spread over a binade, has the NMSE
    eps² / 28.
    """
    if tolerance.exact or not dtype.is_float:
        return Budget(0, 0, 0, exact=True)
    floor = tolerance.ulps * f32.eps
    if dtype.itemsize > 2:
        return Budget(floor, floor**2, floor)
    return Budget(floor + tolerance.roundings * dtype.eps / 2,
                  floor**2 + tolerance.roundings**2 * dtype.eps**2 / 28, floor)


def compare(actual: Array, expected: Expected, tolerance: Tolerance) -> Comparison:
    """Judge a result by its worst element, its NMSE, and its NaN and Inf pattern. Elements that
    overflow by the definition, in the call's own dtypes, are not judged."""
    exact, budget = expected.exact, budget_of(expected, tolerance)
    lost = expected.overflowed if expected.dtype.is_float and actual.shape == exact.shape else None
    if lost is None or not lost.any():
        return judge(actual, exact, expected.dtype, budget)
    zero = np.zeros((), actual.dtype)
    found = judge(np.where(lost, zero, actual), np.where(lost, 0.0, exact), expected.dtype, budget)
    count = int(lost.sum())
    return replace(found, unjudged=count, detail=f"{count} of {lost.size} elements are not judged: "
                   f"the definition itself overflows there; {found.detail}")


def judge(actual: Array, exact: Array, dtype: DType, budget: Budget) -> Comparison:
    """Compare a result of `dtype` with another one, or with the reference, within a budget."""
    if actual.shape != exact.shape or actual.dtype != dtype.numpy:
        return _fail((), f"found {actual.dtype}{list(actual.shape)}, expected "
                         f"{dtype.numpy}{list(exact.shape)}")
    with np.errstate(all="ignore"):
        stored = exact.astype(dtype.numpy)
    if budget.exact:
        return _compare_bits(actual, stored)
    a, x, target = (v.astype(np.float64) for v in (actual, exact, stored))
    odd = ~np.isfinite(target)
    wrong = np.where(odd, ~_same_bits(a, target), ~np.isfinite(a))
    if wrong.any():
        worst = tuple(int(i) for i in np.argwhere(wrong)[0])
        return _fail(worst, f"NaN or Inf pattern differs: found {a[worst]}, expected "
                            f"{target[worst]}")
    a, x = (np.where(odd, 0.0, v) for v in (a, x))
    error = _relative(a, x)
    if not error.size:
        return Comparison(True, 0.0, 0.0, 0.0, 0.0, (), "empty")
    nmse = _nmse(a, x)
    worst = tuple(int(i) for i in np.unravel_index(int(error.argmax()), error.shape))
    used = max(float(error.max()) / max(budget.peak, _TINY), nmse / max(budget.nmse, _TINY))
    detail = (f"found {a[worst]:.9g}, expected {x[worst]:.9g}; budget {budget.peak:.2e} of the "
              f"row's peak and NMSE {budget.nmse:.2e} (arithmetic in float32: "
              f"{budget.arithmetic:.2e})")
    return Comparison(used <= 1, used, nmse, float(abs(a - x).max()), float(error.max()), worst,
                      detail)


def agreement(a: Array, b: Array, budget: Budget) -> Comparison | None:
    """Return `judge` for two kernels' results within the budget of each other, else None.

    A checked run pays for this at each node, so it takes a few passes in float32, and leaves NaN,
    Inf and anything doubtful to `judge`.
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return None
    if a.tobytes() == b.tobytes() if a.nbytes < 4096 else np.array_equal(a, b):
        return _EQUAL
    if budget.exact or not a.size:
        return None
    if a.dtype.itemsize == 2:
        a, b = a.astype(np.float32), b.astype(np.float32)
    largest = np.maximum.reduce  # without the wrapper of `max`, which costs as much as a row
    rows = (-1, a.shape[-1] if a.ndim else 1)
    a, b = a.reshape(rows), b.reshape(rows)
    distance = np.subtract(a, b)
    power, square = float(np.vdot(b, b)), float(np.vdot(distance, distance))
    np.abs(distance, out=distance)
    error, peak = largest(distance, axis=1), largest(np.abs(b), axis=1)
    if len(error) == 1:
        worst = float(error[0])
        share = worst / max(float(peak[0]), 1e-30)
    else:
        worst = float(largest(error))
        share = float(largest(error / np.maximum(peak, np.float32(1e-30))))
    nmse = square / max(power, _TINY)
    used = max(share / budget.peak, nmse / budget.nmse)
    if not used <= 1:  # NaN is not within anything
        return None
    return Comparison(True, used, nmse, worst, share, (), "within the least budget")


def _compare_bits(actual: Array, stored: Array) -> Comparison:
    equal = _same_bits(actual, stored)
    if equal.all():
        return _EQUAL
    worst = tuple(int(i) for i in np.argwhere(~equal)[0])
    return _fail(worst, f"{int((~equal).sum())} of {equal.size} elements differ; found "
                        f"{actual[worst]}, expected {stored[worst]} (equal bits are required)")


def _same_bits(a: Array, b: Array) -> Array:
    """Compare elements; NaN equals NaN."""
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
