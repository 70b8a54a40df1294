"""Tests fair fusion: overrides win or fail, overlaps have an order, patterns cross views."""

from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import pytest
from signatures import taking_all
from small_graphs import mlp

from core.errors import NoKernelError, OptionError, PluginError
from core.installed.registry import Registry
from core.ir.fusion import FusedOp
from core.ir.graph import Graph
from core.ir.op import OPS, Attr
from core.ir.tolerance import Tolerance
from core.plan.lower import lower
from core.plan.policy import KernelPolicy, Override
from core.plugins.kernel import Kernel
from core.runtime.run_op import run_reference, single_op_plan
from core.tensor.dtype import as_dtype, f32, i32
from core.tensor.tensor import TensorSpec


class Fused(FusedOp):
    dtype_cases = ()
    tolerance = Tolerance(8, 4, "for tests")

    def examples(self):
        return []

    def error_examples(self):
        return []


class SwigluDown(Fused):
    name = "swiglu_down"
    signature = "gate A[T,K], up A[T,K], down W[N,K] -> out A[T,N]"

    def compose(self, g, gate, up, down):
        return g.add("linear", g.add("swiglu", gate, up), down)


class HeadNormRope(Fused):
    """Normalises each head of queries that lie in rows, then rotates them."""

    name = "head_norm_rope"
    signature = "x A[T,H,d], weight W[d], positions i32[T], inv_freq f32[d/2] -> out A[T,H,d]"
    attributes: ClassVar = {"eps": Attr(float), "interleaved": Attr(bool, False)}

    def compose(self, g, x, weight, positions, inv_freq, *, eps, interleaved):
        h = g.view(g.add("rms_norm", g.view(x, "T*H", "d"), weight, eps=eps), "T", "H", "d")
        return g.add("rope", h, positions, inv_freq, interleaved=interleaved)


class AttentionOutput(Fused):
    name = "attention_output"
    signature = ("q A[T,H,d], cache C[2,NB,BS,Hkv,d], block_table i32[S,B], query_starts i32[S+1], "
                 "seq_lens i32[S], weight W[N,K] -> out A[T,N]")
    attributes: ClassVar = {"scale": Attr(float)}

    def compose(self, g, q, cache, table, starts, lens, weight, *, scale):
        mixed = g.add("attention", q, cache, None, table, starts, lens, scale=scale)
        return g.add("linear", g.view(mixed, "T", "H*d"), weight)


@contextmanager
def offered(kernels):
    """Yield a registry in which backends offer kernels for these ops: (op, backend)."""
    registry = Registry()
    for op, _ in kernels:
        OPS.setdefault(op.name, op)
    try:
        for op, backend in kernels:
            variables = {p.dtype for p in (*op.sig.params, *op.sig.outputs) if p.dtype_is_variable}
            bind = taking_all(op, lambda *_, **__: lambda: None)
            kernel = Kernel(op.name, backend, f"my_{op.name}", bind,
                            dict.fromkeys(variables, (f32,)))
            registry.kernels(backend)
            registry._kernels[backend].setdefault(op.name, []).append(kernel)
            registry.sources[kernel] = "test"
        yield registry
    finally:
        for op, _ in kernels:
            OPS.pop(op.name, None)


def choices(registry, backends, overrides=(), graph=None):
    policy = KernelPolicy(registry, backends, tuple(map(Override.parse, overrides)))
    bindings, _ = lower((graph or mlp()).bind({"T": 2}), policy)
    return {b.kernel.name: b for b in bindings}


NUMPY = ("cpu_numpy",)


def test_the_larger_of_overlapping_fusions_is_chosen_and_the_ledger_says_so():
    with offered([(SwigluDown(), "cpu_numpy")]) as registry:
        found = choices(registry, NUMPY)
    assert "gate_up_swiglu" in found and "my_swiglu_down" not in found
    (down,) = [b for b in found.values() if b.node.name.startswith("linear")]
    assert ("cpu_numpy:my_swiglu_down", "covered by cpu_numpy:gate_up_swiglu") in down.refused


def test_a_declared_priority_comes_before_size():
    class Preferred(SwigluDown):
        priority = 1
    with offered([(Preferred(), "cpu_numpy")]) as registry:
        found = choices(registry, NUMPY)
    assert "my_swiglu_down" in found and "gate_up_swiglu" not in found
    assert ("cpu_numpy:gate_up_swiglu", "covered by cpu_numpy:my_swiglu_down") in [
        r for b in found.values() for r in b.refused]


def test_an_override_wins_over_a_larger_fusion_or_fails():
    with offered([(SwigluDown(), "cpu_numpy")]) as registry:
        found = choices(registry, NUMPY, ["swiglu_down=cpu_numpy"])
        assert "my_swiglu_down" in found and "gate_up_swiglu" not in found
        with pytest.raises(OptionError, match="'gate_up_swiglu=cpu_numpy' cannot win: covered by"):
            choices(registry, NUMPY, ["swiglu_down=cpu_numpy", "gate_up_swiglu=cpu_numpy",
                                      "swiglu_down=cpu_numpy"])
        # the last override wins, and one that never wins is an error
        for last in ("linear=cpu_numpy", "gate_up_swiglu=cpu_numpy"):
            with pytest.raises(OptionError, match=r"'swiglu_down=cpu_numpy' cannot win: "):
                choices(registry, NUMPY, ["swiglu_down=cpu_numpy", last])
        kernel = registry.kernels("cpu_numpy", "swiglu_down")[0]
        object.__setattr__(kernel, "supports", lambda call: "needs a moon")
        with pytest.raises(NoKernelError, match="my_swiglu_down: needs a moon"):
            choices(registry, NUMPY, ["swiglu_down=cpu_numpy"])


def test_a_fusion_of_a_later_backend_takes_what_no_earlier_one_has():
    with offered([(SwigluDown(), "cpu_numba")]) as registry:
        found = choices(registry, ("cpu_numpy", "cpu_numba"))
        assert "my_swiglu_down" not in found
        (down,) = [b for b in found.values() if b.node.name.startswith("linear")]
        assert ("cpu_numba:my_swiglu_down", "covered by cpu_numpy:gate_up_swiglu") in down.refused
        for op in ("gate_up_swiglu", "swiglu"):
            registry._kernels["cpu_numpy"].pop(op)
        registry._kernels["cpu_numba"].pop("gate_up_swiglu")
        found = choices(registry, ("cpu_numpy", "cpu_numba"))
        (down,) = [b for b in found.values() if b.node.name.startswith("linear")]
        assert ("cpu_numba:my_swiglu_down",
                "not asked: cpu_numpy:linear came first") in down.refused
        registry._kernels["cpu_numpy"].pop("linear")
        assert "my_swiglu_down" in choices(registry, ("cpu_numpy", "cpu_numba"))


def attention_graph(*view):
    g = Graph("attention")
    q = g.input("q", TensorSpec(("T", 4, 8), f32))
    cache = g.input("cache", TensorSpec((2, 3, 16, 2, 8), f32))
    inputs = [g.input(n, TensorSpec(s, i32)) for n, s in (
        ("block_table", (1, 3)), ("query_starts", (2,)), ("seq_lens", (1,)))]
    mixed = g.add("attention", q, cache, None, *inputs, scale=0.5, name="attention")
    rows = g.view(mixed, *view)
    g.output("y", g.add("linear", rows, g.weight("w", TensorSpec((6, view[-1]), f32)),
                        name="o_proj"))
    return g


def test_a_pattern_crosses_a_view_of_its_own_shape_only():
    with offered([(AttentionOutput(), "cpu_numpy")]) as registry:
        found = choices(registry, NUMPY, graph=attention_graph("T", 32))
        assert [n.name for n in found["my_attention_output"].covers] == ["attention", "o_proj"]
        assert "my_attention_output" not in choices(registry, NUMPY,
                                                    graph=attention_graph("T*2", 16))
        g = attention_graph("T", 32)
        g.output("inside", g.values["attention.view"])  # read by others, through a view
        assert "my_attention_output" not in choices(registry, NUMPY, graph=g)


def test_a_pattern_crosses_views_on_both_sides():
    g = Graph("norm")
    rows = g.input("rows", TensorSpec(("T", 32), f32))
    heads = g.view(rows, "T", 4, 8)
    h = g.add("rms_norm", g.view(heads, "T*4", 8), g.weight("w", TensorSpec((8,), f32)), eps=1e-5)
    g.output("y", g.add("rope", g.view(h, "T", 4, 8), g.input("at", TensorSpec(("T",), i32)),
                        g.weight("inv_freq", TensorSpec((4,), f32))))
    with offered([(HeadNormRope(), "cpu_numpy")]) as registry:
        found = choices(registry, NUMPY, graph=g)
        assert len(found["my_head_norm_rope"].covers) == 2
        assert found["my_head_norm_rope"].inputs["x"].spec.shape == (2, 4, 8)


def test_an_op_with_views_has_a_reference_a_cost_and_a_composition():
    op = AttentionOutput()
    rng = np.random.default_rng(0)
    arrays = {"q": rng.standard_normal((2, 4, 8), np.float32),
              "cache": rng.standard_normal((2, 3, 16, 2, 8), np.float32),
              "block_table": np.arange(3, dtype=np.int32)[None],
              "query_starts": np.array([0, 2], np.int32), "seq_lens": np.array([20], np.int32),
              "weight": rng.standard_normal((6, 32), np.float32)}
    with offered([(op, "cpu_numpy")]) as registry:
        (expected,) = run_reference(op, arrays, {"scale": 0.5})
        plan = single_op_plan(op, arrays, {"scale": 0.5}, backend="cpu_numpy", registry=registry,
                              composed=True)
        plan.run()
        assert np.allclose(plan.output("out").numpy(), expected, atol=1e-4)
        assert np.allclose(op.reference(*arrays.values(), scale=0.5), expected, atol=1e-4)
        specs = {k: TensorSpec(a.shape, as_dtype(a.dtype)) for k, a in arrays.items()}
        assert op.cost(specs, {"scale": 0.5}).flops > 2 * 2 * 6 * 32


def test_a_view_is_no_output():
    class Bad(AttentionOutput):
        def compose(self, g, q, *rest, scale):
            return g.view(q, "T", "H*d")
    with pytest.raises(PluginError, match="compose returns a view"):
        Bad().pattern()
