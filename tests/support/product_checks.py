"""Checks of products of many rows that a kernel's budget is too wide for; each returns an error."""

import numpy as np

import core
from core.runtime.run_op import run_op


def numbers(shape, dtype, scale=1.0, seed=0):
    values = np.random.default_rng([seed, *shape]).normal(scale=scale, size=shape)
    return values.astype(dtype.numpy)


def gated_error(backend, kernel, tokens, rows, width, dtype):
    """Return the worst error of gate_up_swiglu where up is not small, in ULP of the result: 0.5 for
    one that rounds once. A gate or up that is rounded before swiglu takes three times as much."""
    x = numbers((tokens, width), dtype, 3)
    gate, up = (numbers((rows, width), dtype, width**-0.5, seed) for seed in (1, 2))
    found = run_op("gate_up_swiglu", x, gate, up, backend=backend, kernel=kernel)
    g, u = (x.astype(np.float64) @ w.astype(np.float64).T for w in (gate, up))
    exact = g / (1 + np.exp(-g)) * u
    large = np.abs(exact) > 0.1 * np.abs(exact).max()  # elsewhere float32 sums decide
    power = np.exp2(np.floor(np.log2(np.abs(exact[large]))))
    return float((np.abs(found.astype(np.float64) - exact)[large] / power / dtype.eps).max())


def sums_error(backend, kernel, tokens, rows, width, dtype, bias=True):
    """Return the worst error of linear into float32, beside the largest result."""
    x, weight = numbers((tokens, width), dtype), numbers((rows, width), dtype, width**-0.5, 1)
    b = numbers((rows,), dtype, 1, 2) if bias else None
    found = [run_op("linear", x, weight, b, backend=backend, kernel=kernel, out_dtype="f32")
             for _ in range(2)]
    exact = x.astype(np.float64) @ weight.astype(np.float64).T + (
        b.astype(np.float64) if bias else 0)
    assert np.array_equal(*found), f"{kernel} gave two results"
    return float(np.abs(found[0] - exact).max() / np.abs(exact).max())


def codes_error(backend, kernel, tokens, rows, width, group):
    """Return the worst error of quantized_linear with 8-bit codes, beside the largest result."""
    rng = np.random.default_rng(3)
    x = numbers((tokens, width), core.bf16)
    codes = rng.integers(-127, 128, (rows, width), np.int8)
    scales = rng.uniform(0.5, 1, (rows, width // group)).astype(np.float32)
    zeros = rng.integers(-3, 4, scales.shape).astype(np.float32)
    found = run_op("quantized_linear", x, codes, scales, zeros, None, backend=backend,
                   kernel=kernel, bits=8, group_size=group, out_dtype="f32")
    weight = (codes - np.repeat(zeros, group, 1)) * np.repeat(scales, group, 1)
    exact = x.astype(np.float64) @ weight.astype(np.float64).T
    return float(np.abs(found - exact).max() / np.abs(exact).max())
