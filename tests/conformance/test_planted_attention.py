"""The default examples find faults of attention that only real models' calls meet."""

import numpy as np
import pytest
from plain_attention import attention

from core.conformance.cases import matrix
from core.conformance.runner import run_case
from core.installed.registry import Registry
from core.plugins.kernel import Kernel
from core.tensor.dtype import f32

#: name -> keys that a query misses, by (those that it sees, its group, tokens of its sequence)
FAULTS = {
    "over 128 tokens": lambda seen, group, d, n: seen > 128,
    "over 2,000 tokens": lambda seen, group, d, n: seen > 2000,
    "over 4,095 tokens": lambda seen, group, d, n: seen > 4095,
    "over 32,000 tokens": lambda seen, group, d, n: seen > 32000,
    "the last of a full block": lambda seen, group, d, n: seen % 16 == 0 and seen > 16,
    "groups of 7": lambda seen, group, d, n: group == 7 and seen > 1,
    "groups of 5": lambda seen, group, d, n: group == 5 and seen > 1,
    "groups of 16": lambda seen, group, d, n: group == 16 and seen > 1,
    "heads over 128": lambda seen, group, d, n: d > 128,
    "heads of 96": lambda seen, group, d, n: d == 96,
    "the last row of prompts of 33 to 499 tokens": lambda seen, group, d, n: 32 < n < 500
    and seen >= n,
}


def planted(fault):
    """Return a bind whose results miss the last key where the fault says so."""
    def bind(q, cache, cache_scales, block_table, query_starts, seq_lens, out, *, scale):
        group, d = q.shape[1] // cache.shape[3], q.shape[2]
        inputs = (q, cache, cache_scales, block_table, query_starts, seq_lens)
        wrong, starts = np.empty_like(out), query_starts
        right = attention(*inputs, out, scale=scale)
        short = attention(*inputs, wrong, scale=scale, extra_key=-1)

        def launch():
            right()
            short()
            for s, length in enumerate(seq_lens):
                count = starts[s + 1] - starts[s]
                for i in range(count if length else 0):
                    if fault(length - count + i + 1, group, d, count):
                        out[starts[s] + i] = wrong[starts[s] + i]
        return launch
    return bind


def first_wrong(fault):
    registry = Registry()
    kernel = Kernel("attention", "cpu_numpy", "planted",
                    planted(fault), {"A": (f32,), "C": (f32,)})
    registry.kernels("cpu_numpy", "attention").append(kernel)
    registry.sources[kernel] = "test"
    for case in matrix(registry, "cpu_numpy"):
        if case.op.name == "attention" and {d.short for d in case.dtypes.values()} == {"f32"}:
            counts = np.diff(case.arrays["query_starts"])
            met = [fault(length - n + i + 1, case.arrays["q"].shape[1]
                         // case.arrays["cache"].shape[3], case.arrays["q"].shape[2], n)
                   for n, length in zip(counts, case.arrays["seq_lens"], strict=True)
                   for i in range(n if length else 0)]
            # a case that the fault does not touch is right by other tests
            if any(met) and not run_case(case, kernel, registry, case.expected).ok:
                return case.id
    return None


@pytest.mark.parametrize("name", FAULTS)
def test_the_default_examples_find(name):
    assert first_wrong(FAULTS[name]) is not None


def test_a_right_kernel_is_right():
    assert first_wrong(lambda seen, group, d, n: False) is None
