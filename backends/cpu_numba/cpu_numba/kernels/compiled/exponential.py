"""Computes exp over lanes. Numba vectorises math.exp only with Intel's SVML, which few machines
have."""

import numpy as np

from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.simd import fma, pick, shift_exponent, splat

_LOG2_E = np.float32(1.44269504088896341)
_ROUND = np.float32(12582912.0)  # 1.5 * 2^23: adding it leaves the nearest integer in the low bits
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_HIGHEST, _LOWEST = np.float32(88.7), np.float32(-87.3)


@njit(_nrt=False)
def exp(x):
    """Compute exp within 2 ULP: exp(x) = 2^n * p(x - n ln 2), p of degree 6 (the coefficients of
    Cephes' expf). 0 below -87.3, infinity above 88.7."""
    shifted = fma(x, splat(_LOG2_E), splat(_ROUND))
    n = shifted - splat(_ROUND)
    r = fma(n, splat(-_LN2_HIGH), x)
    r = fma(n, splat(-_LN2_LOW), r)
    p = fma(splat(np.float32(1.9875691500e-4)), r, splat(np.float32(1.3981999507e-3)))
    p = fma(p, r, splat(np.float32(8.3334519073e-3)))
    p = fma(p, r, splat(np.float32(4.1665795894e-2)))
    p = fma(p, r, splat(np.float32(1.6666665459e-1)))
    p = fma(p, r, splat(np.float32(5.0000001201e-1)))
    p = fma(p * r, r, r) + splat(np.float32(1))
    result = shift_exponent(p, shifted)
    result = pick(x, splat(_LOWEST), splat(np.float32(0)), result)
    return pick(splat(_HIGHEST), x, splat(np.float32(np.inf)), result)
