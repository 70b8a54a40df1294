"""argmax and sample give an id of the vocabulary, the definition's, also for logits and settings of
which no probabilities can be made."""

import ml_dtypes
import numpy as np
import pytest

from core import run_op

NAN, INF = np.nan, np.inf
# what stands where in a row of 1,000 numbers, and the first of the largest
ROWS = {"NaN": ({500: NAN}, 500), "+Inf": ({500: INF}, 500),
        "NaN after +Inf": ({3: INF, 9: NAN}, 9), "+Inf after NaN": ({3: NAN, 9: INF}, 3),
        "two +Inf": ({400: INF, 77: INF}, 77),
        "two NaN": ({400: NAN, 999: NAN}, 400), "-Inf alone": (dict.fromkeys(range(1000), -INF), 0),
        "NaN in -Inf": ({**dict.fromkeys(range(1000), -INF), 7: NAN}, 7),
        "all +Inf": (dict.fromkeys(range(1000), INF), 0),
        "one number": ({i: -INF for i in range(1000) if i != 123}, 123)}
BACKENDS = ("reference", "cpu_numpy")
DTYPES = (np.float32, np.float16, ml_dtypes.bfloat16)


def row_of(name, dtype):
    row = np.random.default_rng(1).standard_normal((1, 1000), np.float32)
    row[0, list(ROWS[name][0])] = list(ROWS[name][0].values())
    return row.astype(dtype)


def sampled(row, backend, *, temperature=0.7, top_k=0, top_p=1.0, min_p=0.0, penalty=1.0,
            seen=None, position=5):
    f = lambda x: np.array([x], np.float32)  # noqa: E731
    marked, token = run_op("sample", row, f(temperature), np.array([top_k]), f(top_p), f(min_p),
                           f(penalty), np.array([[3, 4]]), np.array([position]), seen,
                           backend=backend)
    assert seen is None or marked[0, token[0]] == 1
    return int(token[0])


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_first_of_the_largest(name, backend, dtype):
    row, largest = row_of(name, dtype), ROWS[name][1]
    assert run_op("argmax", row, backend=backend) == largest
    for settings in ({}, {"temperature": 0.0}, {"top_k": 5, "top_p": 0.9, "min_p": 0.1},
                     {"penalty": 1.5, "seen": np.zeros((1, 1000), np.int8)}):
        assert sampled(row, backend, **settings) == largest, settings


@pytest.mark.parametrize("settings", [{"top_p": 0.0}, {"min_p": 2.0}, {"temperature": NAN},
                                      {"temperature": INF}, {"temperature": 1e-38},
                                      {"temperature": -1.0}, {"top_p": NAN}, {"min_p": NAN},
                                      {"top_k": -3}, {"top_p": -1.0, "top_k": 4}])
def test_settings_out_of_range_give_an_id(settings):
    row = np.random.default_rng(2).standard_normal((1, 50)).astype(np.float32) * 30
    first, second = (sampled(row, backend, **settings) for backend in BACKENDS)
    assert 0 <= first < 50 and first == second


def test_infinite_weights_of_a_penalty():
    row = np.array([[1.0, 3e38, 2.0]], np.float32)
    for backend in BACKENDS:
        assert sampled(row, backend, penalty=1e-38, seen=np.ones((1, 3), np.int8)) == 1


def test_single_minus_inf_is_never_sampled():
    row = np.array([[-INF, 0, -INF, 0, -INF]], np.float32)
    for backend in BACKENDS:
        found = {sampled(row, backend, temperature=50.0, position=p) for p in range(40)}
        assert found == {1, 3}
