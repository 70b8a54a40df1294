"""Signatures, graphs, patterns: tests declaring, printing, drawing and matching."""

import re
import shutil
import subprocess

import pytest
from small_graphs import mlp, spec

from core.errors import OpError, ShapeError
from core.ir import match
from core.ir.graph import Graph
from core.ir.match import find_matches
from core.ir.op import OPS, find_op
from core.ir.signature import Signature, resolve
from core.tensor.dtype import i32
from models.cli.dot import to_dot


def test_signature():
    sig = Signature.parse("x A[T,K], cache C[2,d/2], bias W[N]?, starts i32[S+1] "
                          "-> cache, out O[T]")
    assert [p.name for p in sig.params] == ["x", "cache", "bias", "starts"]
    assert sig.mutated == ("cache",) and [p.name for p in sig.outputs] == ["out"]
    env = sig.unify("op", {"x": spec("T", 3), "cache": spec(2, 4), "bias": None,
                           "starts": spec("S+1", dtype=i32)})
    assert env.dims == {"T": "T", "K": 3, "d": 8, "S": "S"}
    assert resolve("S+1", {"S": 4}) == 5 and resolve("d/2", {}) == "d/2"


def test_product_dimensions():
    sig = Signature.parse("flat A[T*H,d], heads i32[H] -> out A[T,H*d]")
    env = sig.unify("op", {"flat": spec(12, 8), "heads": spec(3, dtype=i32)})
    assert env.dims == {"T": 4, "H": 3, "d": 8}  # the product waits for `heads`
    assert sig.results("op", env)["out"].shape == (4, 24)
    named = sig.unify("op", {"flat": spec("T*3", 8), "heads": spec(3, dtype=i32)})
    assert named.dims["T"] == "T" and sig.results("op", named)["out"].shape == ("T", 24)
    assert resolve("T*3", {"T": 5}) == 15 and resolve("T*H*2", {"H": 4}) == "T*8"
    fours = Signature.parse("x A[T*4] -> out A[T]")
    assert fours.unify("op", {"x": spec("T*8")}).dims["T"] == "T*2"
    with pytest.raises(ShapeError, match=r"`flat` has shape \[13, 8\].*T\*H"):
        sig.unify("op", {"flat": spec(13, 8), "heads": spec(3, dtype=i32)})
    with pytest.raises(ShapeError, match="no other input tells the factors"):
        Signature.parse("x A[T*H] -> out A[T]").unify("op", {"x": spec(12)})


def test_every_op_states_its_definition():
    for op in OPS.values():
        assert type(op).__doc__, op.name
        assert op.examples() and op.error_examples() and op.dtype_cases, op.name
        assert op.tolerance.reason, op.name


def test_graph_prints_and_binds():
    text = str(mlp())
    assert "%x: f32[T,8]  # input" in text and "%norm: f32[8]  # weight" in text
    assert re.search(r"%act: f32\[T,6\] = swiglu\(gate=%gate_proj, up=%up_proj\)", text)
    bound = str(mlp().bind({"T": 3}))
    assert "T" not in re.sub(r"[a-zA-Z_]{2,}", "", bound) and "%act: f32[3,6]" in bound


def test_graph_draws():
    dot = to_dot(mlp(), weights=True)
    assert '"gate_proj" -> "act" [label="f32[T,6]"' in dot and '"norm" [shape=ellipse' in dot
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tsvg"], input=dot, text=True, check=True, capture_output=True)


def test_graph_errors_name_the_node():
    g = Graph()
    x = g.input("x", spec("T", 8))
    with pytest.raises(ShapeError, match=r"node layers\.0\.q_proj: linear: `weight` .* K = 8"):
        g.add("linear", x, g.weight("w", spec(4, 7)), name="layers.0.q_proj")
    with pytest.raises(OpError, match=r"unknown op 'lineer'; known: .*linear"):
        g.add("lineer", x)
    with pytest.raises(OpError, match="unknown attribute epsilon; expected eps"):
        g.add("rms_norm", x, g.weight("n", spec(8)), epsilon=1e-5)
    with pytest.raises(OpError, match="declared twice"):
        g.input("x", spec("T", 8))
    with pytest.raises(ShapeError, match="same number"):
        g.view(x, "T", 2, 3)


def test_patterns_are_found_where_they_may_be_replaced():
    graph = mlp()
    (gate_up,) = find_matches(find_op("gate_up_swiglu"), graph)
    assert sorted(n.name for n in gate_up.nodes) == ["act", "gate_proj", "up_proj"]
    assert {k: v.name for k, v in gate_up.inputs.items()} == {"x": "norm_1", "gate": "gate",
                                                              "up": "up"}
    (norm,) = find_matches(find_op("add_rms_norm"), graph)
    assert norm.attrs == {"eps": 1e-5} and {k: v.name for k, v in norm.outputs.items()} == {
        "sum": "residual", "out": "norm_1"}


def test_a_pattern_whose_inside_is_used_elsewhere_is_left_alone():
    graph = mlp()
    graph.output("peek", graph.values["gate_proj"])
    assert list(find_matches(find_op("gate_up_swiglu"), graph)) == []
    graph = Graph()
    x = graph.input("x", spec("T", 8))
    total = graph.add("add", x, x)
    graph.add("softmax", total)  # needs the sum before the norm has run
    graph.add("rms_norm", total, graph.weight("n", spec(8)), eps=1e-5)
    assert list(find_matches(find_op("add_rms_norm"), graph)) == []


def test_a_pattern_is_left_alone_where_a_value_it_reads_is_updated_on_the_way():
    graph = Graph()
    x, w = graph.state("x", spec(2, 1, 16, 2, 4)), graph.weight("n", spec(4))
    k, slots = graph.input("k", spec("T", 2, 4)), graph.input("slots", spec("T", dtype=i32))
    rows = graph.view(x, 64, 4)
    total = graph.add("add", rows, rows)
    graph.add("kv_cache_write", k, k, x, None, slots)
    graph.add("rms_norm", total, w, eps=1e-5)
    assert list(find_matches(find_op("add_rms_norm"), graph)) == []


def test_patterns_are_looked_for_once_for_all_sizes(monkeypatch):
    def found(graph):
        return [([n.name for n in m.nodes], {k: v and v.spec for k, v in m.inputs.items()},
                 m.outputs) for m in find_matches(find_op("gate_up_swiglu"), graph)]

    graph = mlp()
    (small,) = found(graph.bind({"T": 2}))
    again = graph.bind({"T": 3})
    with monkeypatch.context() as patch:
        patch.setattr(match, "_extend", None)
        (large,) = found(again)
    assert small[0] == large[0] and [v.spec.shape[0] for v in small[2].values()] == [2]
    assert [(v.spec.shape[0], again.values[v.name]) for v in large[2].values()] == [
        (3, v) for v in large[2].values()]
    again.output("peek", again.values["gate_proj"])  # which changes this graph alone
    assert found(again) == [] and len(found(graph.bind({"T": 4}))) == 1


def test_prune_keeps_what_is_read_and_what_updates_state():
    g = Graph()
    x, norm = g.input("x", spec("T", 4)), g.weight("norm", spec(4))
    k = g.view(g.add("rms_norm", x, norm, name="k", eps=1e-5), "T", 1, 4)
    cache = g.state("cache", spec(2, "NB", "BS", 1, 4))
    g.add("kv_cache_write", k, k, cache, None, g.input("slots", spec("T", dtype=i32)), name="write")
    unread = g.add("add", x, x, name="unread")
    g.view(g.add("add", unread, x, name="unread_too"), "T", 2, 2)
    g.output("sum", g.add("add", x, g.view(k, "T", 4), name="sum"))
    g.prune()
    assert [n.name for n in g.nodes] == ["k", "write", "sum"]
    assert not [v for v in g.values if "unread" in v]
    g.bind({"T": 3, "NB": 1, "BS": 4})  # what is left is whole
