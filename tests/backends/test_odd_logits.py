"""Tests what argmax and sample are defined to give for logits and settings without probabilities.
The matrix holds every backend to the definitions, by the same rows (`odd`, `outside`)."""

import ml_dtypes
import numpy as np
import pytest

from core import run_op
from core.ops.sampling import INF, NAN, ODD_ROWS

#: where the first of the largest stands
LARGEST = {"NaN": 500, "+Inf": 500, "NaN after +Inf": 9, "+Inf after NaN": 3, "two +Inf": 77,
           "two NaN": 400, "-Inf alone": 0, "NaN in -Inf": 7, "all +Inf": 0, "one number": 123}
DTYPES = (np.float32, np.float16, ml_dtypes.bfloat16)


def row_of(name, dtype):
    row = np.random.default_rng(1).standard_normal((1, 1000), np.float32)
    row[0, list(ODD_ROWS[name])] = list(ODD_ROWS[name].values())
    return row.astype(dtype)


def sampled(row, *, temperature=0.7, top_k=0, top_p=1.0, min_p=0.0, penalty=1.0, seen=None,
            position=5):
    f = lambda x: np.array([x], np.float32)  # noqa: E731
    with np.errstate(all="ignore"):
        marked, token = run_op("sample", row, f(temperature), np.array([top_k]), f(top_p),
                               f(min_p), f(penalty), np.array([[3, 4]]), np.array([position]),
                               seen, backend="reference")
    assert seen is None or marked[0, token[0]] == 1
    return int(token[0])


@pytest.mark.parametrize("name", ODD_ROWS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_first_of_the_largest(name, dtype):
    row = row_of(name, dtype)
    assert run_op("argmax", row, backend="reference") == LARGEST[name]
    for settings in ({}, {"temperature": 0.0}, {"top_k": 5, "top_p": 0.9, "min_p": 0.1},
                     {"penalty": 1.5, "seen": np.zeros((1, 1000), np.int8)}):
        assert sampled(row, **settings) == LARGEST[name], settings


@pytest.mark.parametrize("settings, first", [
    ({"top_p": 0.0}, True), ({"min_p": 2.0}, True), ({"temperature": NAN}, None),
    ({"temperature": 1e-38}, True), ({"top_p": -1.0, "top_k": 4}, True)])
def test_settings_that_leave_nothing_to_choose_from(settings, first):
    row = np.random.default_rng(2).standard_normal((1, 50)).astype(np.float32) * 30
    assert sampled(row, **settings) == (row.argmax() if first else 0)


def test_infinite_weights_of_a_penalty():
    row = np.array([[1.0, 3e38, 2.0]], np.float32)
    assert sampled(row, penalty=1e-38, seen=np.ones((1, 3), np.int8)) == 1


def test_single_minus_inf_is_never_sampled():
    row = np.array([[-INF, 0, -INF, 0, -INF]], np.float32)
    assert {sampled(row, temperature=50.0, position=p) for p in range(40)} == {1, 3}
