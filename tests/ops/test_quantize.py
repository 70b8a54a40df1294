"""Quantising by blocks and in threads gives the bits of the plain formula over the whole matrix."""

import ml_dtypes
import numpy as np
import pytest

from core.ops import quantize as module
from core.ops.quantize import quantize


def plain(weight, bits, group, symmetric):
    """Compute codes, scales and zeros as float32 [N,K], [N,G], [N,G], one group after another."""
    n, k = weight.shape
    w = weight.astype(np.float32)
    codes, scales, zeros = np.empty((n, k), np.float32), [], []
    for start in range(0, k, group):
        part = w[:, start:start + group]
        low, high = part.min(1), part.max(1)
        if symmetric:
            largest, middle = (127, 0) if bits == 8 else (7, 8)
            scale = np.abs(part).max(1) / np.float32(largest)
            scale[scale == 0] = 1
            zero = np.zeros_like(scale)
            code = np.rint(part / scale[:, None]).clip(-largest, largest) + middle
        else:
            lowest, steps = (-127, 254) if bits == 8 else (0, 15)
            scale = (high - low) / np.float32(steps)
            scale = np.where(scale == 0, np.where(low == 0, 1, np.abs(low)), scale)
            zero = lowest - low / scale
            code = np.rint(part / scale[:, None] + zero[:, None]).clip(lowest, lowest + steps)
        codes[:, start:start + group] = code
        scales.append(scale)
        zeros.append(zero)
    return codes, np.stack(scales, 1), np.stack(zeros, 1)


@pytest.mark.parametrize(("bits", "symmetric"), [(8, True), (8, False), (4, True), (4, False)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_bits_of_the_plain_formula(dtype, bits, symmetric, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 1 << 9)  # several blocks, the last one short
    monkeypatch.setattr(module, "_AHEAD", 1 << 11)  # pages are brought in for some blocks at a time
    rng = np.random.default_rng(7)
    for n, k, group in ((67, 128, 32), (5, 100, 64), (9, 33, 32), (1, 7, 3), (2, 130, 1000)):
        weight = rng.normal(0, 1, (n, k)).astype(dtype)
        weight[0, :4] = 0
        weight[-1] = 0.5  # a group of equal numbers
        q = quantize(weight, bits, group, symmetric=symmetric)
        codes, scales, zeros = plain(weight, bits, group, symmetric)
        if bits == 4:
            padded = np.pad(codes, ((0, 0), (0, k % 2))).astype(np.uint8)
            codes = padded[:, ::2] | padded[:, 1::2] << 4
        assert q.codes.dtype == (np.int8 if bits == 8 else np.uint8)
        assert np.array_equal(q.codes, codes.astype(q.codes.dtype))
        assert q.scales.tobytes() == scales.astype(np.float32).tobytes()
        assert symmetric == (q.zeros is None)
        assert symmetric or np.array_equal(q.zeros, zeros.astype(np.float32))


def test_scales_of_the_smallest_numbers():
    """Numbers near the smallest float32 divide inexactly by their scale: codes stay in range."""
    tiny = np.float32(1.4e-45)
    weight = (np.arange(-40, 181, dtype=np.float32) * tiny)[None]
    q = quantize(weight, 8, 256)
    assert q.codes.max() == 127 and q.codes.min() >= -127


def test_what_a_thread_raises_is_raised(monkeypatch):
    monkeypatch.setattr(module, "_LITTLE", 1)
    weight = np.ones((8, 64), np.float32)
    weight[5, 3] = np.nan
    with np.errstate(invalid="raise"), pytest.raises(FloatingPointError):
        quantize(weight, 8, 32, threads=2)
