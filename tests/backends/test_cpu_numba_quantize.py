"""Quantising by compiled code gives the bits of the definition, whatever the numbers are."""

import ml_dtypes
import numpy as np
import pytest

from core.ops.quantized.quantize import quantize
from models.checkpoints.base import read_checkpoint
from models.engine.load import settle_checkpoint
from models.engine.options import LoadOptions

pytest.importorskip("numba")
backend = pytest.importorskip("cpu_numba.backend").NumbaBackend
SCHEMES = [(8, True), (8, False), (4, True), (4, False)]


def rows(dtype):
    """Make rows of 128: usual ones, and those in which a group of 32 needs care."""
    rng = np.random.default_rng(5)
    usual = rng.normal(0, 0.02, (300, 128))
    odd = rng.normal(0, 1, (13, 128))
    odd[0], odd[1], odd[2], odd[3, 7] = 0, -0.0, 0.5, 0
    odd[4] = 1000 + odd[4] * 1e-3
    odd[5], odd[6] = odd[5] * 1e-44, odd[6] * 1e-38
    odd[7] = rng.choice([-3e38, 3e38, 0.0, -0.0], 128)
    odd[8], odd[9] = np.abs(odd[8]), -np.abs(odd[9])
    odd[10, 40], odd[11, 3], odd[12, 127] = np.nan, np.inf, -np.inf
    with np.errstate(over="ignore"):
        return np.concatenate([usual, odd, usual[::-1]]).astype(dtype)


@pytest.mark.parametrize(("bits", "symmetric"), SCHEMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_bits_of_the_definition(dtype, bits, symmetric):
    weight, left = rows(dtype), []

    def by(weight, into):
        left.append(backend(threads=2).quantize(weight, into))
        return left[0]
    with np.errstate(all="ignore"):
        made = quantize(weight, bits, 32, symmetric=symmetric, by=by)
        right = quantize(weight, bits, 32, symmetric=symmetric)
    assert made.codes.tobytes() == right.codes.tobytes()
    assert made.scales.tobytes() == right.scales.tobytes()
    assert symmetric or made.zeros.tobytes() == right.zeros.tobytes()
    # usual rows are not left to the definition, and numbers that are none always are
    assert not left[0][:300].any() and not left[0][-300:].any() and left[0][310:313].all()


@pytest.mark.parametrize("weight", [
    np.ones((3, 100), np.float32), np.ones((3, 128))[:, ::2], np.ones((0, 64), np.float32),
    np.ones((64, 3), np.float32).T], ids=["short group", "float64", "no rows", "not contiguous"])
def test_what_is_left_to_the_definition(weight):
    seen = []

    def by(weight, into):
        seen.append(backend(threads=2).quantize(weight, into))
        return seen[0]
    made, right = quantize(weight, 4, 32, by=by), quantize(weight, 4, 32)
    assert seen == [None]
    assert made.codes.tobytes() == right.codes.tobytes()


def test_a_model_is_quantised_by_its_backend(monkeypatch):
    """The hook is asked for every matrix that is quantised, and the codes are those without it."""
    asked, real = [], backend.quantize

    def quantize(self, weight, into):
        asked.append(weight.shape)
        return real(self, weight, into)
    monkeypatch.setattr(backend, "quantize", quantize)

    def weights(backends):
        options = LoadOptions(backends, quantize="int4", group_size=32, max_context=64)
        registry = options.registry()
        checkpoint = read_checkpoint("stories-llama2", registry)
        store = settle_checkpoint(checkpoint, options, registry).weights()
        return {name: array.tobytes() for name, array in store.arrays.items()}
    made = weights("cpu_numba,cpu_numpy")
    assert len(asked) == sum(name.endswith(".codes") for name in made) > 0
    assert made == weights("cpu_numpy")
