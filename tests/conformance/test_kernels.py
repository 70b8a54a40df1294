"""Tests kernels' other promises: dispatch adds nothing, flags are true, no copies."""

import gc
import tracemalloc
from functools import partial

import numpy as np
import pytest

import core
import models
from core.conformance.cases import matrix
from core.conformance.properties.rows import take_rows
from core.errors import DtypeError, NoKernelError, OpError, ShapeError
from core.installed.registry import default_registry
from core.ir.examples import spec
from core.ir.op import OPS
from core.runtime.run_op import run_kernel, single_op_plan

CASES = [c for c in matrix(default_registry(), "cpu_numpy") if c.example]


@pytest.mark.parametrize("op", sorted({c.op.name for c in CASES}))
def test_dispatched_equals_called_directly(op):
    """The plan must hand a kernel exactly what a direct call would, bit for bit."""
    registry = default_registry()
    for case in [c for c in CASES if c.op.name == op][:6]:
        (entry,) = single_op_plan(case.op, case.arrays, case.attrs, backend="cpu_numpy").bindings
        kernel = entry.kernel
        arrays = {k: None if a is None else a.copy() for k, a in case.arrays.items()}
        if kernel.prepare is not None:
            weights = {k: a for k, a in arrays.items()
                       if k in case.op.weight_params and a is not None}
            packed = {k: np.empty(s.sizes, s.dtype.numpy)
                      for k, s in kernel.packs(entry.call).items()}
            kernel.prepare(entry.call, packed=packed, **weights)
            arrays.update(packed)
        outs = {k: np.empty(s.sizes, s.dtype.numpy) for k, s in case.op.infer(
            entry.call.inputs, entry.call.attrs).items()}
        keywords = {k: v for k, v in entry.call.attrs.items()
                    if not case.op.attributes[k].structural}
        if kernel.workspace is not None:
            spec = kernel.workspace(entry.call)
            keywords["workspace"] = np.empty(spec.sizes, spec.dtype.numpy)
        kernel.bind(*arrays.values(), *outs.values(), **keywords)()
        direct = {**arrays, **outs}
        dispatched = run_kernel(case.op, case.arrays, case.attrs, backend="cpu_numpy",
                                registry=registry)
        for name, array in zip(case.op.result_names, dispatched, strict=True):
            if array is not None:
                assert array.tobytes() == direct[name].tobytes(), case.id


@pytest.mark.parametrize("kernel", [
    pytest.param(k, id=k.id) for k in default_registry().kernels("cpu_numpy")
    if k.batch_invariant and k.op not in (
        "advance", "attention", "kv_cache_write", "put_tokens")])  # families try ragged attention
def test_batch_invariant_kernels_are(kernel):
    """A row's bits do not depend on the rows beside it. (The suite tests it at random shapes.)"""
    tested = 0
    for case in CASES:
        rows = next((a.shape[0] for a in case.arrays.values() if a is not None), 0)
        if case.op.name != kernel.op or rows < 2 or kernel.refuses(case.call):
            continue
        run = partial(run_kernel, case.op, attrs=case.attrs, backend="cpu_numpy",
                      kernel=kernel.name)
        whole = run(case.arrays)
        for row in (0, rows - 1):
            alone = run(take_rows(case.op, case.arrays, np.array([row])))
            for x, y in zip(whole, alone, strict=True):
                assert x is None or x[row].tobytes() == y[0].tobytes(), case.id
        tested += 1
    assert tested


def test_every_op_states_its_cost():
    for case in CASES:
        specs = single_op_plan(case.op, case.arrays, case.attrs, backend="cpu_numpy"
                               ).bindings[0].call.inputs
        cost = case.op.cost(specs, case.op.complete(case.attrs))
        assert cost.nbytes >= 0 and cost.flops >= 0, case.id


def test_cost_of_a_product():
    cost = OPS["linear"].cost({"x": spec("f32[2,3]"), "weight": spec("bf16[5,3]"), "bias": None},
                              {"out_dtype": None})
    assert (cost.flops, cost.nbytes) == (2 * 2 * 3 * 5, 4 * 6 + 2 * 15 + 4 * 10)
    cost = OPS["gate_up_swiglu"].cost({"x": spec("f32[2,3]"), "gate": spec("f32[5,3]"),
                                       "up": spec("f32[5,3]")}, {})
    assert cost.nbytes == 4 * (6 + 15 + 15 + 10)


def test_run_op():
    x, w = np.ones((2, 8), np.float32), np.full((3, 8), 2, np.float32)
    assert (core.run_op("linear", x, w) == 16).all()
    exact = core.run_op("linear", x, w, backend="reference")
    assert exact.dtype == np.float64 and (exact == 16).all()
    ids = core.run_op("embedding", np.array([2, 0]), w)  # any integers
    assert ids.shape == (2, 8)
    total, normed = core.run_op("add_rms_norm", x, x, np.ones(8, np.float32), eps=0.0)
    assert (total == 2).all() and np.allclose(normed, 1)


def test_run_op_leaves_its_inputs_alone():
    cache = np.zeros((2, 1, 16, 1, 4), np.float32)
    k = np.ones((1, 1, 4), np.float32)
    updated, scales = core.run_op("kv_cache_write", k, k, cache, None, np.array([3]))
    assert updated[:, 0, 3].min() == 1 and cache.max() == 0 and scales is None


@pytest.mark.parametrize("past", [0, 5, 40])
def test_run_op_attention_with_plain_arrays(past):
    rng = np.random.default_rng(past)
    q = rng.standard_normal((3, 4, 8), np.float32)
    k, v = (rng.standard_normal((past + 3, 2, 8), np.float32) for _ in range(2))
    out = core.run_op("attention", q, k, v, scale=0.3, past=past)
    for t in range(3):
        for h in range(4):
            seen = past + t + 1
            p = np.exp(k[:seen, h // 2] @ q[t, h] * 0.3)
            assert np.allclose(out[t, h], p / p.sum() @ v[:seen, h // 2], atol=1e-5)
    with pytest.raises(OpError, match="past"):
        core.run_op("attention", q, k[1:], v, scale=0.3, past=past)


def test_run_op_errors():
    x = np.ones((2, 8), np.float32)
    with pytest.raises(DtypeError, match="float64; backends compute"):
        core.run_op("add", x.astype(np.float64), x.astype(np.float64))
    with pytest.raises(DtypeError, match="`b` is float16, expected float32"):
        core.run_op("add", x, x.astype(np.float16))
    with pytest.raises(ShapeError, match=r"`b` has shape \[2, 7\], expected \[T, D\] where D = 8"):
        core.run_op("add", x, x[:, :7])
    with pytest.raises(OpError, match="add takes 2 inputs"):
        core.run_op("add", x, x, x)
    with pytest.raises(OpError, match="unknown op 'conv'"):
        core.run_op("conv", x)
    with pytest.raises(DtypeError, match="outside int32"):
        core.run_op("embedding", np.array([2**31]), x)
    with pytest.raises(OpError, match=r"ids \[-1, 9\] are outside the table: expected 0 to 1"):
        core.run_op("embedding", np.array([-1, 0, 9]), x)
    with pytest.raises(OpError, match="past=-1"):
        core.run_op("attention", x[:, None], x[:, None], x[:, None], scale=1.0, past=-1)
    with pytest.raises(NoKernelError, match="A is f16, takes f32"):
        core.run_op("add", x.astype(np.float16), x.astype(np.float16))


def test_stored_weights_are_not_copied():
    allocator = default_registry().backend("cpu_numpy").allocator
    before = allocator.stats.allocated
    with models.load("stories-llama2") as model:
        weights = model.session.weights
        assert allocator.stats.allocated - before < model.session.kv_bytes + 100_000
        for name, array in weights.arrays.items():
            tensor = weights.tensor(name, allocator)
            assert tensor.pointer == array.ctypes.data
            if name != "rope.inv_freq":
                assert isinstance(array.base, np.memmap) or isinstance(array, np.memmap)


@pytest.mark.parametrize("quantize", [None, "int8", "int4"])
def test_weights_moved_into_memory(quantize):
    """Move each once: the array that it came from is let go. They begin where a page's lines do."""
    allocator = default_registry().backend("cpu_numpy").allocator
    with models.load("stories-llama2", quantize=quantize) as model:
        expected = model.generate("Once upon", max_new_tokens=8).run().tokens
    del model
    gc.collect()
    before = allocator.stats.allocated
    with models.load("stories-llama2", quantize=quantize, mmap=False) as model:
        weights = model.session.weights
        read = [name for name in weights.arrays if (name, "cpu") in weights._tensors]
        held = sum(weights.arrays[name].nbytes for name in read)
        assert held > 0.9 * weights.nbytes
        assert allocator.stats.allocated - before >= held
        for name in read:
            assert weights.tensor(name, allocator).pointer == weights.arrays[name].ctypes.data
            assert weights.arrays[name].ctypes.data % 64 == 0
        assert model.generate("Once upon", max_new_tokens=8).run().tokens == expected
    del model, weights
    gc.collect()
    assert allocator.stats.allocated == before


def test_16_bit_weights_are_widened_once():
    done = []
    with models.load("stories-qwen2", progress=lambda *step: done.append(step)) as model:
        first = len(done)
        assert first and {what for what, _, _ in done} == {"preparing weights"}
        model.generate("Once upon a time", max_new_tokens=4).run()
        assert len(done) == first  # prefill uses what decode prepared


def test_a_decode_step_allocates_nothing_large(story):
    story.generate("Once upon a time", max_new_tokens=4).run()
    tracemalloc.start()
    try:
        for _ in range(3):
            story.session.step()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    logits = story.config.vocab_size * 4
    assert peak < 8 * logits + 16_384


def test_no_hook_is_called_while_tokens_are_computed(story):
    calls = []
    manager = default_registry().plugins.manager
    undo = manager.add_hookcall_monitoring(lambda name, *rest: calls.append(name),
                                           lambda *rest: None)
    try:
        story.generate("Once upon a time", max_new_tokens=4, temperature=0.5).run()
    finally:
        undo()
    assert calls == []
