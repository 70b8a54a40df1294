"""Backends that quantise weights to other bits, raise or return nonsense are found and named."""

import numpy as np
import pytest

from core.conformance.rules.quantizing import wrong_bits
from core.errors import BackendError
from core.ops.quantized.quantize import quantize
from cpu_numpy.backend import NumpyBackend
from models.engine.quantizing import quantizer


def backend(fill):
    return type("Other", (NumpyBackend,), {"name": "other", "quantize": fill})()


def copied(self, weight, into, spoil=lambda into: None):
    right = quantize(weight, into.bits, into.group_size, symmetric=into.zeros is None)
    into.codes[:], into.scales[:] = right.codes, right.scales
    if into.zeros is not None:
        into.zeros[:] = right.zeros
    spoil(into)
    return np.zeros(len(weight), bool)


def one_code(into):
    into.codes[-1, -1] ^= 1


def one_scale(into):
    into.scales[0, 0] = np.nextafter(into.scales[0, 0], np.float32(1))


def test_the_same_bits_are_found_right():
    assert wrong_bits(backend(copied)) == wrong_bits(NumpyBackend()) == []


@pytest.mark.parametrize("spoil", [one_code, one_scale])
def test_other_bits_are_found(spoil):
    found = wrong_bits(backend(lambda self, w, into: copied(self, w, into, spoil)))
    assert len(found) == 60 and found[0] == "f32 [40, 128] to 8 bits in groups of 32"


def boom(self, weight, into):
    raise ZeroDivisionError("no")


@pytest.mark.parametrize(("fill", "said"), [
    (boom, r"other: quantize of a matrix \(4, 64\) of float32 raised ZeroDivisionError: no; fix"),
    (lambda self, w, into: True, "returned a bool, expected None or bool \\[4\\]"),
    (lambda self, w, into: np.zeros((4, 1), bool), "returned a ndarray"),
    (lambda self, w, into: np.zeros(4), "returned a ndarray")])
def test_what_it_does_wrong_names_it(fill, said):
    with pytest.raises(BackendError, match=said):
        quantize(np.ones((4, 64), np.float32), 8, 64, by=quantizer("other", backend(fill)))
