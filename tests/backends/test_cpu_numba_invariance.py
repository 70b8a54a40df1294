"""Batch invariance of an engine on cpu_numba: a request's tokens and log-probability bits do not
depend on the schedule."""

import pytest
from batch_invariance import alone, check_property, open_engine

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
