"""The definitions as a backend of last resort: `--backend X,reference`."""

import numpy as np
import pytest

import core
import models
from core.errors import NoKernelError
from core.installed.registry import REFERENCE, Registry, default_registry
from core.ir.op import OPS, Op
from core.ir.tolerance import EXACT
from core.runtime.run_op import run_kernel, run_reference
from core.verify.policies import parse_policy
from models import run


def test_a_model_runs_by_definitions_alone(story):
    expected = story.generate("Once upon a time", max_new_tokens=6).run().tokens
    with models.load("stories-llama2", backend="reference", max_context=32) as model:
        assert model.generate("Once upon a time", max_new_tokens=6).run().tokens == expected
        assert {e.kernel for e in model.ledger.entries} == {"reference:definition"}
        assert {e.source.partition(" ")[0] for e in model.ledger.entries} == {"kernelyard"}


def test_what_a_backend_lacks_is_computed_by_the_definition(story):
    expected = story.generate("Once upon a time", max_new_tokens=6).run().tokens
    with models.load("stories-llama2", backend="cpu_numba,reference", max_context=32) as model:
        assert model.generate("Once upon a time", max_new_tokens=6).run().tokens == expected
        by_definition = {e.op for e in model.ledger.entries if e.kernel == "reference:definition"}
        fused = [r for e in model.ledger.entries for r in e.refused if "reference" in r[0]]
    assert by_definition == {"argmax", "advance"} and fused == []


@pytest.mark.parametrize("options", [{"quantize": "int4"}, {"kv_dtype": "i8"}])
def test_codes_and_caches_of_integers(options):
    ids = [1, 5, 9, 12]
    with models.load("stories-qwen2", max_context=32, **options) as model:
        expected = model.logits(ids)
    with models.load("stories-qwen2", backend="reference", max_context=32, **options) as model:
        assert np.allclose(model.logits(ids), expected, atol=1e-2)


def test_it_is_not_installed_but_known():
    registry = default_registry()
    assert REFERENCE not in registry.specs and registry.unavailable(REFERENCE) is None
    assert {k.op for k in registry.kernels(REFERENCE)} == set(OPS)
    assert not any(registry.guest(k) for k in registry.kernels(REFERENCE))
    assert parse_policy("reference", registry) is None  # the oracle, not a backend under test


def test_another_backend_cannot_take_the_name():
    registry = Registry()
    with pytest.raises(core.errors.ClashError, match="'reference' is core's own"):
        registry._add_backend("reference", core.BackendSpec("reference", "cpu", "a:b", ""))


def test_a_results_dtype_is_rounded_once():
    rng = np.random.default_rng(0)
    arrays = {"a": rng.standard_normal((3, 5)).astype(np.float16),
              "b": rng.standard_normal((3, 5)).astype(np.float16)}
    (exact,) = run_reference(OPS["add"], arrays, {})
    (found,) = run_kernel(OPS["add"], arrays, {}, backend="reference")
    assert found.dtype == np.float16 and (found == exact.astype(np.float16)).all()


class Double(Op):
    name = "double_it"
    signature = "x A[T,D] -> out A[T,D]"
    dtype_cases = ({"A": "f32"},)
    tolerance = EXACT

    def reference(self, x):
        return 2 * x

    def examples(self):
        return []

    def error_examples(self):
        return []


def test_a_new_op_runs_on_its_first_day_and_the_hint_says_how():
    OPS["double_it"] = Double()
    registry, x = Registry(), {"x": np.ones((2, 3), np.float32)}
    try:
        with pytest.raises(NoKernelError, match="reference would take it; allow a fallback with "
                           "--backend cpu_numpy,reference"):
            run_kernel(OPS["double_it"], x, {}, backend="cpu_numpy", registry=registry)
        (found,) = run_kernel(OPS["double_it"], x, {}, backend="cpu_numpy,reference",
                              registry=registry)
    finally:
        del OPS["double_it"]
    assert (found == 2).all()


def test_the_hint_names_the_backend_that_has_the_kernel():
    with pytest.raises(NoKernelError, match="cpu_numpy and reference would take it; allow a "
                       "fallback with --backend cpu_numba,cpu_numpy"):
        models.load("stories-llama2", backend="cpu_numba")


def test_a_checked_run_takes_it(capsys):
    code = run.main(["--backend", "cpu_numba,reference", "--check", "reference", "--prompt", "Once",
                     "--max-new-tokens", "3", "--max-context", "32"])
    assert code == 0, capsys.readouterr()
