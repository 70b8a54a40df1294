"""Each property of the conformance suite fails for a kernel that breaks it."""

import ctypes
import inspect
from functools import partial
from unittest.mock import patch

import numpy as np
import pytest
from plain_attention import attention
from signatures import taking_all

from core.conformance.properties import PROPERTIES
from core.conformance.properties.subject import Refused
from core.conformance.trials import property_cases
from core.errors import KernelError
from core.installed.registry import Registry
from core.ir.op import OPS
from core.ops.quantized_linear import expand_weight
from core.plugins.kernel import Kernel


class Random:
    """Draws without hypothesis: enough for faults that most examples show."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def integer(self, low, high):
        return int(self.rng.integers(low, high + 1))

    def choice(self, options):
        return options[self.integer(0, len(options) - 1)]


def subject(op, bind, *, batch_invariant=False):
    """Return a kernel beside cpu_numpy's own."""
    registry = Registry()
    real = registry.kernels("cpu_numpy", op)[0]
    changed = bind(real.bind)
    scratch = real.workspace if "workspace" in inspect.signature(changed).parameters else None
    mutant = Kernel(op, "cpu_numpy", "mutant", taking_all(OPS[op], changed), real.dtypes,
                    workspace=scratch, batch_invariant=batch_invariant)
    registry._kernels["cpu_numpy"][op].append(mutant)
    registry.sources[mutant] = "test"
    return next(iter(property_cases(registry, mutant))).subject


def broken(name, tested):
    """Return the property's complaint about the subject in 30 examples, None if it holds."""
    ran = 0
    for seed in range(30):
        try:
            with np.errstate(all="ignore"):
                PROPERTIES[name].check(tested, Random(seed))
        except Refused:
            continue
        except AssertionError as error:
            return str(error) or "differs"
        ran += 1
    assert ran
    return None


def depends_on_position(bind):
    """Adds a little to the first row of a call, as a kernel does that misreads a tile."""
    def mutant(a, b, out):
        return lambda: (np.add(a, b, out=out), np.add(out[:1], 0.1, out=out[:1]))
    return mutant


def rounds_by_batch(bind):
    """Sum in another order when there are more rows: right within the tolerance."""
    def mutant(x, weight, out, *, eps):
        def launch():
            if len(x) > 3:
                mean = np.mean(x[:, ::-1] ** 2, axis=-1, keepdims=True, dtype=np.float64)
                out[:] = x / np.sqrt(mean + eps) * weight
            else:
                bind(x, weight, out, eps=eps)()
        return launch
    return mutant


def overwrites(bind):
    """Stores the tokens of a step and clears what steps before it stored."""
    def mutant(k, v, cache, cache_scales, slots):
        def launch():
            cache[:] = 0
            bind(k, v, cache, cache_scales, slots)()
        return launch
    return mutant


def _attention(change):
    """Run the plain attention of the mutants, on inputs that `change` has edited."""
    def bind(q, cache, cache_scales, block_table, query_starts, seq_lens, out, *, scale):
        def launch():
            new = change({"block_table": block_table.copy(), "query_starts": query_starts.copy(),
                          "seq_lens": seq_lens.copy()})
            attention(q, cache, cache_scales, new["block_table"], new["query_starts"],
                      new["seq_lens"], out, scale=scale)()
        return launch
    return lambda real: bind


def first_length_for_all(x):
    x["seq_lens"] = np.minimum(x["seq_lens"], x["seq_lens"][:1].repeat(len(x["seq_lens"])))
    return x


def blocks_in_order(x):
    """Ignores the block table: takes the blocks one after another."""
    counts = (x["block_table"] >= 0).sum(1)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    x["block_table"] = (starts[:, None] + np.arange(x["block_table"].shape[1])).astype(np.int32)
    return x


def not_causal(bind):
    def mutant(q, cache, cache_scales, block_table, query_starts, seq_lens, out, *, scale):
        def launch():
            attention(q, cache, cache_scales, block_table, query_starts, seq_lens, out,
                      scale=scale, extra_key=1000)()
        return launch
    return mutant


def far_positions_clipped(bind):
    """Use a table of angles that ends at 255."""
    def mutant(x, positions, inv_freq, out, *, interleaved, workspace):
        near = np.empty_like(positions)
        run = bind(x, near, inv_freq, out, interleaved=interleaved, workspace=workspace)
        return lambda: (np.minimum(positions, 255, out=near), run())
    return mutant


def without_maximum(bind):
    """Compute exp(x) / (0.01 + sum(exp(x))): not shifted, and guarded against a division by 0."""
    def mutant(x, out):
        def launch():
            e = np.exp(x)
            np.divide(e, 1e-2 + e.sum(axis=-1, keepdims=True), out=out)
        return launch
    return mutant


def any_score_in_range(bind):
    """Run cpu_numpy's attention without the maximum of each row, which large scores need."""
    def mutant(*inputs, scale, workspace):
        run = bind(*inputs, scale=scale, workspace=workspace)

        def launch():
            with patch("cpu_numpy.kernels.attention._IN_RANGE", np.inf):
                run()
        return launch
    return mutant


def zeros_left_out(bind):
    def mutant(x, codes, scales, zeros, bias, out, *, bits, group_size):
        def launch():
            w = expand_weight(codes, scales, None, bits, group_size, x.shape[1])
            out[:] = x @ w.T + (0 if bias is None else bias)
        return launch
    return mutant


def aligned_loads(bind):
    """Read the weight from the multiple of 64 bytes at or before its address."""
    def mutant(x, weight, out, *, eps):
        start = weight.ctypes.data // 64 * 64
        read = np.ctypeslib.as_array((ctypes.c_float * len(weight)).from_address(start))
        return bind(x, read, out, eps=eps)
    return mutant


def spoils_its_weight(bind):
    def mutant(x, weight, out, *, eps):
        run = bind(x, weight, out, eps=eps)
        return lambda: (run(), weight.__imul__(1))
    return mutant


MUTANTS = {
    "permuting_rows": ("add", depends_on_position, {}),
    "splitting_rows": ("kv_cache_write", overwrites, {}),
    "rows_alone": ("rms_norm", rounds_by_batch, {"batch_invariant": True}),
    "permuting_sequences": ("attention", _attention(first_length_for_all), {}),
    "sequences_alone": ("attention", _attention(first_length_for_all), {}),
    "splitting_a_prefill": ("attention", not_causal, {}),
    "paging": ("attention", _attention(blocks_in_order), {}),
    "shifting_scores": ("attention", any_score_in_range, {}),
    "relative_positions": ("rope", far_positions_clipped, {}),
    "shifting": ("softmax", without_maximum, {}),
    "expanding": ("quantized_linear", zeros_left_out, {}),
    "mapping_weights": ("rms_norm", aligned_loads, {}),
}


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_mutant_breaks(name):
    op, bind, options = MUTANTS[name]
    assert broken(name, subject(op, bind, **options)) is not None


@pytest.mark.parametrize("name", PROPERTIES)
def test_the_real_kernel_holds(name):
    assert broken(name, subject(MUTANTS[name][0], lambda real: real)) is None


def test_a_kernel_that_writes_to_mapped_weights_is_named():
    with pytest.raises(KernelError, match=r"launch raised ValueError: .*read-only"):
        broken("mapping_weights", subject("rms_norm", spoils_its_weight))


def test_bits_are_asked_only_of_kernels_that_promise_them():
    assert broken("rows_alone", subject("rms_norm", rounds_by_batch)) is None
    said = broken("rows_alone", subject("rms_norm", rounds_by_batch, batch_invariant=True))
    assert "has other bits" in said


def next_rows_entry(bind):
    """Reads each row's entries one too late, as with a wrong border."""
    def mutant(logits, starts, ids, penalties, add, mask, out):
        def launch():
            late = np.minimum(starts + 1, starts[-1])
            bind(logits, late, ids, penalties, add, mask, out)()
        return launch
    return mutant


def test_rows_take_their_entries_along():
    for name in ("permuting_rows", "rows_alone", "splitting_rows"):
        assert broken(name, subject("adjust_logits", lambda real: real)) is None
        assert broken(name, subject("adjust_logits", next_rows_entry)) is not None


def test_plain_attention_holds_everywhere():
    """The plain attention must pass: it is the control of the attention mutants."""
    for name in ("permuting_sequences", "sequences_alone", "splitting_a_prefill", "paging"):
        assert broken(name, subject("attention", lambda real: partial(attention))) is None
