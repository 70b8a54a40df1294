"""Batch invariance of an engine on cpu_numba: a request's tokens and log-probability bits do not
depend on the schedule."""

import pytest
from batch_invariance import alone, check_property, open_engine

pytest.importorskip("cpu_numba")

OPTIONS = {"f32": {"dtype": "f32"}, "bf16": {"dtype": "bf16"},
           "int8": {"dtype": "f32", "quantize": "int8", "kv_dtype": "i8"}}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_request_is_the_same_in_any_schedule(name):
    with open_engine("cpu_numba,cpu_numpy", **OPTIONS[name]) as engine:
        check_property(engine, alone(engine), 10)
        assert engine.stats.preemptions
        kernels = {e.kernel for e in engine.ledger.entries}
        assert ("cpu_numba:integer_dot_many" if name == "int8" else
                "cpu_numba:linear_dot_many") in kernels
        assert "cpu_numba:attention_stretches_many" in kernels
