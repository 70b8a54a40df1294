"""A kernel goes through LLVM once, and loops of ours run on Numba's threads."""

import numpy as np
import pytest

numba = pytest.importorskip("numba")
pytest.importorskip("cpu_numba")

from cpu_numba import whole  # noqa: E402
from cpu_numba.kernels.compiled.jit import njit  # noqa: E402
from cpu_numba.kernels.compiled.spread import on_threads  # noqa: E402


@njit(_nrt=False)
def _least(x):
    return max(3, min(x, 11))


@njit(_nrt=False)
def _twice(x):
    return 2 * _least(x)


@njit
def _kernel(x):
    return _twice(x) + _least(x)


@numba.njit
def _stranger(x):
    return _twice(x) + min(x, 2)


@njit(_nrt=False)
def _scaled(i, source, factor, out, visits):
    visits[i] += 1
    out[i] = source[i] * factor


@njit
def _scale(source, factor, out, visits, alone):
    on_threads(_scaled, source.size, alone, (source, factor, out, visits))


def test_a_kernel_is_optimised_once_and_others_may_link_its_parts(monkeypatch):
    optimised = []
    real = whole._Library._optimize_final_module
    monkeypatch.setattr(whole._Library, "_optimize_final_module",
                        lambda self: (optimised.append(self.name), real(self)))
    with whole.kernels_whole(_kernel):
        _kernel.compile((numba.int64,))
    assert [n for n in optimised if n != "nrt"] == ["_kernel"]  # that is Numba's, once a process
    assert [_kernel(x) for x in (1, 5, 20)] == [9, 15, 33]
    # Numba itself compiles this one: it links the same parts, of Numba's own functions too
    assert [_stranger(x) for x in (1, 5, 20)] == [7, 12, 24]


def test_numba_is_as_it_was_after_what_cannot_be_compiled():
    codegen = _kernel.targetctx.codegen()
    before = codegen._library_class
    with pytest.raises(numba.TypingError), whole.kernels_whole(_kernel):
        _kernel.compile((numba.types.unicode_type,))
    assert codegen._library_class is before
    assert not whole._active


@pytest.mark.parametrize("alone", [True, False])
def test_each_index_runs_once(alone):
    for count in (0, 1, 5, 1000):
        source, visits = np.arange(count, dtype=np.float32), np.zeros(count, np.int64)
        out = np.zeros_like(source)
        _scale(source, np.float32(3), out, visits, alone)
        assert (visits == 1).all()
        assert (out == 3 * source).all()
