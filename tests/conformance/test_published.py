"""The examples have the dimensions and attributes of the published models' plans."""

from functools import cache

import numpy as np
import pytest

from core.conformance.cases import cells, examples_of
from core.installed.registry import default_registry
from core.ir.examples import ExampleInputs
from core.ir.op import OPS
from core.tensor.dtype import as_dtype, f32
from core.tensor.tensor import TensorSpec
from models.analysis.calls import model_calls
from models.checkpoints.random import SHAPES, abstract_checkpoint
from models.engine.options import LoadOptions

#: dimensions of a step, not of a model: the number of tokens, sequences and blocks
STEP = {"T", "S", "B", "NB", "BS"}
#: ops that meet a model's vocabulary alone
VOCABULARY = {"argmax", "sample"}


PROMPTS = (17, 512)  #: tokens of the prompts whose calls these are


class Shapes(ExampleInputs):
    """Makes arrays that take no memory: only their shapes are asked for."""

    def normal(self, *shape, scale=1.0):
        return np.zeros(shape) if np.prod(shape) < 1 << 16 else np.broadcast_to(0.0, shape)

    def codes(self, bits, rows, columns):
        columns = columns if bits == 8 else (columns + 1) // 2
        return np.broadcast_to(np.int8(0), (rows, columns))


@cache
def known(name):
    """List what an op's examples have: dimensions, attributes, tokens; and whether by default."""
    op, found = OPS[name], {}
    for dtypes in cells(op):
        for large in (False, True):
            for example in examples_of(op, dtypes, large=large):
                made = example.make(Shapes(np.random.default_rng(0)))
                specs = {p.name: None if (a := made.get(p.name)) is None else TensorSpec(
                    a.shape, f32 if p.dtype_is_variable else as_dtype(p.dtype))
                    for p in op.sig.params}
                dims = op.sig.unify(name, specs).dims
                found[example.name, str(example.attrs)] = (dims, op.complete(example.attrs), large)
    return list(found.values())


@pytest.mark.parametrize("quantize", [None, "int8", "int4"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_call_of_a_published_model_is_an_example(shape, quantize):
    calls = model_calls(abstract_checkpoint(shape, "f32", layers=2),
                        LoadOptions(quantize=quantize), default_registry(), "cpu_numpy",
                        prompts=PROMPTS)
    missing = set()
    for call in calls:
        op, attrs = OPS[call.op], {k: v for k, v in call.attrs if k != "out_dtype"}
        dims = {k: d for k, d in op.bind(call.specs, dict(call.attrs)).dims.items()
                if k not in STEP}
        if dims.get("V") in PROMPTS:  # the last rows of a prompt: a table of its tokens
            del dims["V"]
        if call.op not in VOCABULARY and not any(
                dims.items() <= have.items() and attrs.items() <= given.items()
                for have, given, _ in known(call.op)):
            missing.add((call.op, *dims.items(), *attrs.items()))
    assert missing == set()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_longest_context_is_an_example_of_attention(shape):
    numbers = SHAPES[shape]
    heads, kv_heads = numbers["num_attention_heads"], numbers["num_key_value_heads"]
    assert any(have["B"] * 16 >= numbers["max_position_embeddings"]
               and (have["H"], have["Hkv"]) == (heads, kv_heads)
               for have, _, _ in known("attention"))


def test_attention_meets_every_group_and_head_size_by_default():
    default = [have for have, _, large in known("attention") if not large]
    assert {have["H"] // have["Hkv"] for have in default} >= {*range(1, 9), 16}
    assert {have["d"] for have in default} >= {64, 80, 96, 112, 128, 160, 192, 256}
    assert max(have["B"] * have["BS"] for have in default) >= 32768


@pytest.mark.parametrize("name", [n for n, op in OPS.items()
                                  if any("T" in p.dims for p in op.sig.params)])
def test_steps_have_1_to_4096_tokens(name):
    tokens = {have["T"] for have, _, _ in known(name)}
    assert 1 in tokens
    # fused products of quantised weights are for decode steps: their parts have the long ones
    assert max(tokens) == 4096 or name.startswith(("add_norm_", "qkv_"))
