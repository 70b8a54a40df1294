"""The matrix fails when a kernel is wrong. Each mutant is one classic mistake in a right kernel."""

from functools import partial

import numpy as np
import pytest

from core.backend import Kernel
from core.conformance.cases import matrix
from core.conformance.runner import references, run_case
from core.registry import Registry


def attention(q, cache, cache_scales, block_table, query_starts, seq_lens, out, *, scale,
              extra_key=0, wrong_head=False):
    """A plain kernel with two switches; with both off it is correct (see the control below)."""
    kv_heads = cache.shape[3]

    def launch():
        out[:] = 0
        for s, length in enumerate(seq_lens):
            slots = np.arange(length)
            blocks = block_table[s, slots // cache.shape[2]]
            k, v = cache[:, blocks, slots % cache.shape[2]].astype(np.float32)
            if cache_scales is not None:
                both = cache_scales[:, blocks, slots % cache.shape[2]][..., None]
                k, v = k * both[0], v * both[1]
            first = length - (query_starts[s + 1] - query_starts[s])
            for i, t in enumerate(range(query_starts[s], query_starts[s + 1] if length else 0)):
                seen = max(1, first + i + 1 + extra_key)
                for h in range(q.shape[1]):
                    kv = h % kv_heads if wrong_head else h // (q.shape[1] // kv_heads)
                    p = np.exp((score := k[:seen, kv] @ q[t, h] * scale) - score.max())
                    out[t, h] = p / p.sum() @ v[:seen, kv]
    return launch


def without_scale(*arrays, scale):
    return attention(*arrays, scale=1.0)


def swapped_layout(bind):
    return lambda *arrays, interleaved, **rest: bind(*arrays, interleaved=not interleaved, **rest)


def without_eps(bind):
    return lambda *arrays, eps: bind(*arrays, eps=0.0)


def unsigned_codes(bind):
    return lambda x, codes, *rest, **attrs: bind(x, codes.view(np.uint8), *rest, **attrs)


MUTANTS = {
    "attention: control, correct": ("attention", lambda bind: attention, True),
    "attention: sees one key too many": ("attention", lambda bind: partial(attention, extra_key=1),
                                         False),
    "attention: misses its own key": ("attention", lambda bind: partial(attention, extra_key=-1),
                                      False),
    "attention: KV head mapped wrongly": ("attention",
                                          lambda bind: partial(attention, wrong_head=True), False),
    "attention: no 1/sqrt(d)": ("attention", lambda bind: without_scale, False),
    "rope: control, correct": ("rope", lambda bind: bind, True),
    "rope: layouts swapped": ("rope", swapped_layout, False),
    "rms_norm: no eps": ("rms_norm", without_eps, False),
    "add_rms_norm: no eps": ("add_rms_norm", without_eps, False),
    "quantized_linear: codes read as unsigned": ("quantized_linear", unsigned_codes, False),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_matrix_catches(name):
    op, mutate, correct = MUTANTS[name]
    registry = Registry()
    (kernel,) = registry.kernels("cpu_numpy", op)
    mutant = Kernel(op, "cpu_numpy", "mutant", mutate(kernel.bind), kernel.dtypes,
                    workspace=None if op == "attention" else kernel.workspace)
    registry._kernels["cpu_numpy"][op].append(mutant)
    registry.sources[mutant] = "test"
    with np.errstate(all="ignore"):
        outcomes = [run_case(case, mutant, registry, references(case))
                    for case in matrix(registry, "cpu_numpy") if case.op.name == op and case.sample]
    assert len(outcomes) > 4
    wrong = [o for o in outcomes if not o.ok]
    assert bool(wrong) != correct, "\n".join(map(str, wrong)) or f"no case notices {name}"


def test_stray_writes_and_changed_inputs_are_caught():
    def beyond(a, b, out):
        wide = np.lib.stride_tricks.as_strided(out, (out.size + 1,), (4,))
        return lambda: (np.add(a, b, out=out), wide.__setitem__(-1, 1.0))

    def scribbles(a, b, out):
        return lambda: (np.add(a, b, out=out), np.multiply(a, 2, out=a))

    def forgets(a, b, out):
        return lambda: np.add(a[:-1], b[:-1], out=out[:-1])

    def random(a, b, out):
        return lambda: np.add(a, b * np.float32(1 + np.random.rand()), out=out)

    registry = Registry()
    registry.kernels("cpu_numpy", "add")
    case = next(c for c in matrix(registry, "cpu_numpy") if c.op.name == "add" and c.sample
                and c.sample.name == "T17_D896")
    (real,) = registry.kernels("cpu_numpy", "add")
    for bad, complaint in ((beyond, "outside of its outputs"), (scribbles, "changed an input"),
                           (forgets, "NaN or Inf pattern"), (random, "differ in bits")):
        mutant = Kernel("add", "cpu_numpy", bad.__name__, bad, real.dtypes)
        registry._kernels["cpu_numpy"]["add"].append(mutant)
        registry.sources[mutant] = "test"
        outcome = run_case(case, mutant, registry, references(case))
        assert not outcome.ok and complaint in str(outcome), str(outcome)
