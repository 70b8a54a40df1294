"""Batch invariance of whole engines: a request's tokens and log-probability bits do not depend on
the schedule, and the property that says so finds faults of kernels, cache and scheduler."""

from dataclasses import replace

import pytest
from batch_invariance import alone, check_property, open_engine
from test_prefix_cache import MUTANTS

from core.errors import LifetimeError, NoKernelError
from core.installed.registry import Registry

EXAMPLES = 15


@pytest.fixture(scope="module")
def engine():
    with open_engine("cpu_numpy") as opened:
        yield opened


@pytest.fixture(scope="module")
def expected(engine):
    return alone(engine)


def test_a_request_is_the_same_in_any_schedule(engine, expected):
    check_property(engine, expected, EXAMPLES)
    assert engine.stats.preemptions


# the other is harmless here: a step that reads a block which entered too early fills it first
@pytest.mark.parametrize("mutant", sorted(set(MUTANTS) - {"a block enters before it is full"}))
def test_a_faulty_cache_is_noticed(engine, expected, mutant, monkeypatch):
    monkeypatch.setattr(*MUTANTS[mutant])
    with pytest.raises((AssertionError, LifetimeError)):
        check_property(engine, expected, EXAMPLES)


def with_mutant(op: str, name: str) -> Registry:
    """Return a registry in which a kernel of cpu_numpy claims a family that it is not of."""
    registry = Registry()
    kernels = registry.kernels("cpu_numpy", op)
    real = next(k for k in kernels if k.name == name)
    liar = replace(real, name="liar", family="rows")
    kernels.insert(0, liar)
    registry.sources[liar] = "test"
    return registry


@pytest.mark.parametrize(("op", "name"), [("linear", "linear_widened"), ("attention", "attention")])
def test_a_kernel_that_depends_on_the_chunk_is_noticed(op, name):
    with open_engine("cpu_numpy", registry=with_mutant(op, name)) as engine:
        expected = alone(engine)
        assert any(e.kernel == "cpu_numpy:liar" for e in engine.ledger.entries)
        with pytest.raises(AssertionError):
            check_property(engine, expected, EXAMPLES)


def test_without_the_mode_bits_differ():
    with open_engine("cpu_numpy", batch_invariant=False) as engine:
        expected = alone(engine)
        with pytest.raises(AssertionError):
            check_property(engine, expected, EXAMPLES)


def test_the_fingerprint_names_model_kernels_and_mode(engine, expected):
    assert engine.fingerprint == f"stories-llama3-{engine.ledger.hash}-batch-invariant"


def test_a_kernel_without_a_family_is_refused():
    with pytest.raises(NoKernelError, match="linear_widened: --batch-invariant: declares no fam"):
        open_engine("cpu_numpy", kernels=["linear=cpu_numpy:linear_widened"])


def test_a_fused_kernel_is_refused_unless_its_parts_have_its_bits(engine, expected):
    refused = {(k, why) for e in engine.ledger.entries for k, why in e.refused}
    assert ("cpu_numpy:linear_widened", "--batch-invariant: declares no family, so a row's bits "
            "may depend on the number of rows") in refused
    assert not any(e.op == "gate_up_swiglu" for e in engine.ledger.entries)
