"""Quantising by blocks gives the bits of the plain formula over the whole matrix."""

import ml_dtypes
import numpy as np
import pytest

from core.ops.quantized import group_range
from core.ops.quantized import quantize as module
from core.ops.quantized.quantize import quantize


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


@pytest.mark.parametrize(("bits", "symmetric"), [(8, True), (8, False), (4, True), (4, False)])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_groups_that_leave_their_range(dtype, bits, symmetric):
    """Codes are held in their range where rounding errors are as large as a code: nearly equal
    numbers far from 0, the smallest numbers, and the largest."""
    rng = np.random.default_rng(3)
    weight = np.concatenate([
        (1000 + rng.normal(0, 1e-3, (40, 64))), rng.normal(0, 1, (40, 64)) * 1e-44,
        rng.normal(0, 1, (40, 64)) * 1e-38, rng.choice([-3e38, 3e38, 0.0, -0.0], (4, 64)),
        -np.abs(rng.normal(0, 1, (40, 64)))]).astype(dtype)
    with np.errstate(over="ignore"):
        q = quantize(weight, bits, 64, symmetric=symmetric)
        codes, scales, zeros = plain(weight, bits, 64, symmetric)
    if bits == 4:
        codes = codes.astype(np.uint8)[:, ::2] | codes.astype(np.uint8)[:, 1::2] << 4
    assert np.array_equal(q.codes, codes.astype(q.codes.dtype))
    assert q.scales.tobytes() == scales.astype(np.float32).tobytes()
    assert symmetric or np.array_equal(q.zeros, zeros.astype(np.float32))


@pytest.mark.parametrize("group", [1, 2, 3, 6, 7, 64, 96])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_ranges_are_those_of_numpy(dtype, group):
    rng = np.random.default_rng(group)
    numbers = (rng.normal(0, 1, (50, group)) * rng.choice([1e-40, 1, 1e30], (50, 1))).astype(dtype)
    numbers[0], numbers[1], numbers[2, -1], numbers[3, 0] = -1, -0.0, np.inf, -np.inf
    numbers[4, -1] = np.nan
    words = numbers.view(f"u{numbers.itemsize}").reshape(-1)
    room = np.empty((3, words.size), words.dtype)
    wide = numbers.astype(np.float32)
    low, high = group_range.ranges(words, group, room)
    most = group_range.largest_magnitudes(words, group, room)
    assert np.isnan(low[4]) or np.isnan(high[4])
    keep = np.arange(50) != 4
    assert np.array_equal(low[keep], wide.min(1)[keep])
    assert np.array_equal(high[keep], wide.max(1)[keep])
    assert np.array_equal(most, np.abs(wide).max(1), equal_nan=True)


def test_what_goes_wrong_is_raised(monkeypatch):
    monkeypatch.setattr(module, "_AHEAD", 1)  # while another thread brings in pages
    weight = np.ones((8, 64), np.float32)
    weight[5, 3] = np.nan
    with np.errstate(invalid="raise"), pytest.raises(FloatingPointError):
        quantize(weight, 8, 32)
