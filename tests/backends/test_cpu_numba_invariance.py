"""Batch invariance of an engine on cpu_numba: a request's tokens and log-probability bits do not
depend on the schedule."""

import ml_dtypes
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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_row_of_a_product_is_the_same_beside_any_others(dtype):
    """Tokens are multiplied by fours where there are enough: each number of them that is left over,
    rows of weights without a partner, columns beyond the last whole vector."""
    kind = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    rng = np.random.default_rng(7)
    x, weight = (rng.standard_normal((n, 1043), np.float32).astype(kind) for n in (8, 67))
    bias = rng.standard_normal(67, np.float32).astype(kind)
    alone = np.concatenate([run_op("linear", x[t:t + 1], weight, bias, backend="cpu_numba")
                            for t in range(8)])
    for first in range(8):
        for last in range(first + 2, 9):
            some = run_op("linear", x[first:last], weight, bias, backend="cpu_numba")
            assert some.tobytes() == alone[first:last].tobytes()
