"""Tests which kernel runs: strictness, fallback across devices, overrides, fusion, the ledger."""

from importlib.metadata import EntryPoint, entry_points

import numpy as np
import pytest
import toy_backend
from small_graphs import mlp

import core
import models
from core.errors import BackendError, NoKernelError, OptionError
from core.installed.discovery import GROUP
from core.installed.loader import Plugins
from core.installed.registry import Registry
from core.ir.graph import Graph
from core.ir.op import find_op
from core.plan.plan import Plan
from core.plan.policy import KernelPolicy, Override
from core.plan.weights import WeightStore
from core.runtime.run_op import run_kernel, single_op_plan
from core.tensor.dtype import f32
from core.tensor.tensor import Tensor, TensorSpec


@pytest.fixture
def registry():
    """Return the installed plugins and the toy backend."""
    return Registry(Plugins([*entry_points(group=GROUP),
                             EntryPoint("toy", "toy_backend", GROUP)]))


def add_arrays(rows):
    return {"a": np.ones((rows, 4), np.float32), "b": np.full((rows, 4), 2, np.float32)}


def test_predicates_refuse_with_a_reason(registry):
    registry.backend("toy")
    (total,) = run_kernel(find_op("add"), add_arrays(3), {}, backend="toy", registry=registry)
    assert (total == 3).all()
    (entry,) = single_op_plan(find_op("add"), add_arrays(2), {}, backend="toy",
                              registry=registry).ledger.entries
    assert entry.kernel == "toy:slow_add"
    assert entry.refused == (("toy:add", "takes no two rows"),)


def test_strict_by_default(registry):
    with pytest.raises(NoKernelError) as caught:
        run_kernel(find_op("softmax"), {"x": np.ones((2, 4), np.float32)}, {}, backend="toy",
                   registry=registry)
    message = str(caught.value)
    assert "toy:softmax: A is f32, takes f16" in message and "--backend toy," in message
    with pytest.raises(NoKernelError, match="toy: has no kernel for embedding"):
        models.load("stories-llama2", backend="toy", registry=registry)


def test_a_model_across_two_devices(registry, story):
    ids = story.encode("Once upon a time")
    with models.load("stories-llama2", fusion=False) as plain:
        expected = plain.logits(ids)
    with models.load("stories-llama2", kernels=["add=toy"], fusion=False,
                     registry=registry) as mixed:
        assert np.array_equal(mixed.logits(ids), expected)
        adds = [e for e in mixed.ledger.entries if e.op == "add"]
        assert adds and all(e.kernel.startswith("toy:") and "from cpu to toy:0" in e.note
                            for e in adds)
        assert any("from toy:0 to cpu" in e.note for e in mixed.ledger.entries)


def test_state_is_never_copied_between_devices(registry):
    with pytest.raises(NoKernelError, match=r"`cache` is kept on toy:0 between steps, this "
                       r"kernel runs on cpu\n.*toy: has no kernel for kv_cache_write"):
        models.load("stories-llama2", backend="toy,cpu_numpy", registry=registry)


def test_only_a_repeating_plan_of_one_backend_is_captured(registry):
    def plan(backends, overrides=()):
        graph = mlp().bind({"T": 3})
        allocator = registry.backend(backends[0]).allocator
        tensors = {v.name: Tensor.zeros(v.spec.shape, v.spec.dtype, allocator)
                   for v in graph.roots("input")}
        weights = WeightStore({v.name: np.ones(v.spec.shape, np.float32)
                               for v in graph.roots("weight")})
        return Plan(graph, KernelPolicy(registry, backends, overrides), weights, tensors,
                    repeats=True)

    toy_backend.captured.clear()
    plan(("cpu_numpy",), (Override.parse("add=toy"),))
    run_kernel(find_op("add"), add_arrays(3), {}, backend="toy", registry=registry)
    assert toy_backend.captured == []
    graph = Graph()
    x = graph.input("x", TensorSpec((3, 4), f32))
    graph.output("y", graph.add("add", x, x))
    tensors = {"x": Tensor.zeros((3, 4), f32, registry.backend("toy").allocator)}
    for repeats, expected in ((False, 0), (True, 1)):
        Plan(graph, KernelPolicy(registry, ("toy",)), WeightStore({}), tensors, repeats=repeats)
        assert len(toy_backend.captured) == expected


def test_overrides_by_node_and_kernel(registry):
    with models.load("stories-llama2", kernels=["layers.1.*:add=toy:slow_add"],
                     registry=registry) as model:
        kernels = {e.node: e.kernel for e in model.ledger.entries if e.phase == "decode"}
    chosen = {n for n, k in kernels.items() if k == "toy:slow_add"}
    assert chosen == {"layers.1.attention_residual", "layers.1.mlp_residual"}
    assert kernels["layers.0.post_attention_layernorm"] == "cpu_numpy:add_rms_norm"


@pytest.mark.parametrize(("text", "complaint"), [
    ("attention", "expected OP=BACKEND"), ("=cpu_numpy", "expected OP=BACKEND"),
    ("attenton=cpu_numpy", "unknown op 'attenton'; known: .*attention"),
    ("add=cpu_numpy:fast", "no kernel 'fast' for add; it offers: add"),
    ("softmax=toy:nope", "it offers: softmax"), ("rope=toy", "it offers: none")])
def test_bad_overrides(registry, text, complaint):
    with pytest.raises(OptionError, match=complaint):
        models.load("stories-llama2", kernels=[text], registry=registry)


def test_bad_backend_lists(registry):
    for text in ("", "toy,", "toy,toy"):
        with pytest.raises(BackendError, match="distinct names"):
            models.load("stories-llama2", backend=text, registry=registry)
    with pytest.raises(BackendError, match=r"unknown backend 'cuda'; installed: .*cpu_numpy"):
        core.run_op("add", np.ones((1, 1), np.float32), np.ones((1, 1), np.float32), backend="cuda")


def test_fusion_changes_the_ledger_and_not_the_result(story):
    ids = story.encode("Once upon a time, there was a fox")
    with models.load("stories-llama2", fusion=False) as plain:
        assert np.allclose(plain.logits(ids), story.logits(ids), rtol=0, atol=1e-5)
        used = {e.op for e in plain.ledger.entries}
        assert plain.ledger.hash != story.ledger.hash
    assert not used & {"add_rms_norm", "gate_up_swiglu"}
    fused = {e.op: e.covers for e in story.ledger.entries}
    assert len(fused["gate_up_swiglu"]) == 3 and len(fused["add_rms_norm"]) == 2


def test_the_ledger_is_complete_and_stable():
    with models.load("stories-llama2") as first, models.load("stories-llama2") as again:
        assert again.ledger.hash == first.ledger.hash
        plan = again.session.plans[0]
        covered = [n for e in plan.ledger.entries for n in e.covers]
        assert sorted(covered) == sorted(n.name for n in plan.graph.nodes)
        assert {e["source"] for e in plan.ledger.to_json()["entries"]} == {
            "kernelyard-cpu-numpy 0.1.0"}
