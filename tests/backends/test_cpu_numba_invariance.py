"""Batch invariance of an engine on cpu_numba: a request's tokens and log-probability bits do not
depend on the schedule."""

import numpy as np
import pytest
from batch_invariance import alone, check_property, open_engine

from core import run_op

pytest.importorskip("cpu_numba")

#: options, and how many schedules: those of f32 preempt some requests, the others show the kernels
CASES = {"f32": ({"dtype": "f32"}, 10), "bf16": ({"dtype": "bf16"}, 3),
         "int8": ({"dtype": "bf16", "quantize": "int8", "kv_dtype": "i8"}, 3)}


@pytest.mark.parametrize("name", CASES)
def test_a_request_is_the_same_in_any_schedule(name):
    options, schedules = CASES[name]
    with open_engine("cpu_numba,cpu_numpy", **options) as engine:
        check_property(engine, alone(engine), schedules)
        assert engine.stats.preemptions or name != "f32"
        kernels = {e.kernel for e in engine.ledger.entries}
        assert ("cpu_numba:integer_dot_many" if name == "int8" else
                "cpu_numba:linear_dot_many") in kernels
        assert "cpu_numba:attention_stretches_many" in kernels


@pytest.mark.parametrize("kind", ["f32", "int8"])
def test_a_row_of_a_product_is_the_same_beside_any_others(kind):
    """Tokens are multiplied by fours where there are enough: each number of them that is left over,
    rows of weights without a partner, columns beyond the last whole vector."""
    rng = np.random.default_rng(7)
    rows, columns = (67, 1043) if kind == "f32" else (67, 192)
    x = rng.standard_normal((8, columns), np.float32)
    weight, bias = rng.standard_normal((rows, columns), np.float32), rng.standard_normal(
        rows, np.float32)
    codes = rng.integers(-127, 128, (rows, columns), np.int8)
    scales, zeros = rng.random((2, rows, columns // 64), np.float32)

    def product(first, last):
        if kind == "f32":
            return run_op("linear", x[first:last], weight, bias, backend="cpu_numba")
        return run_op("quantized_linear", x[first:last], codes, scales, zeros, bias, bits=8,
                      group_size=64, backend="cpu_numba")
    alone = np.concatenate([product(t, t + 1) for t in range(8)])
    for first in range(8):
        for last in range(first + 2, 9):
            assert product(first, last).tobytes() == alone[first:last].tobytes()
