"""Divides work among threads as they become free: a core that other programs use, or that memory
serves later, does less of it. Results do not depend on which thread computes them."""

from typing import Any, NamedTuple

from numba import types
from numba.extending import intrinsic

from cpu_numba.kernels.compiled import emit
from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.naming import named
from cpu_numba.kernels.compiled.spread import on_threads


class Shared(NamedTuple):
    """Says how many threads share a loop; how many pieces they have claimed, int64 [1]; where each
    piece begins and the last one ends, int64 [pieces + 1]."""

    threads: int
    counter: Any
    starts: Any


@intrinsic
def claim(typing_context, counter, count):
    """Claim the next `count` pieces of work: returns their first number. counter[0] is what is
    claimed so far."""
    def code(context, builder, signature, args):
        place = emit.pointer(context, builder, counter, args[0], emit.I64(0), emit.I64)
        return builder.atomic_rmw("add", place, args[1], "monotonic")
    return types.intp(counter, types.intp), code


def shared(work):
    """Make loop(how, x, first, second, third, sizes): it runs work(n, x, first, second, third,
    sizes) for every n that `how`, a Shared, has."""
    @njit(_nrt=False)
    @named(work.py_func.__module__, work.py_func, "share")
    def share(_, counter, starts, x, first, second, third, sizes):
        piece = claim(counter, 1)
        while piece + 1 < starts.size:
            for n in range(starts[piece], starts[piece + 1]):
                work(n, x, first, second, third, sizes)
            piece = claim(counter, 1)

    @njit(_nrt=False)
    @named(work.py_func.__module__, work.py_func, "loop")
    def loop(how, x, first, second, third, sizes):
        threads, counter, starts = how
        counter[0] = 0
        on_threads(share, threads, threads == 1, (counter, starts, x, first, second, third, sizes))
    return loop


def shared_rows(rows_of):
    """Make a shared loop for products with one to three matrices: rows_of(n, x, matrix, sizes) for
    every n of each; `first` has as many as `first.pieces` says."""
    @njit(_nrt=False, forceinline=True)
    @named(rows_of.py_func.__module__, rows_of.py_func, "of_three")
    def work(n, x, first, second, third, sizes):
        matrix = first  # all are of one type: the code that multiplies stands here once
        if n >= first.pieces:
            n, matrix = n - first.pieces, second
            if n >= second.pieces:
                n, matrix = n - second.pieces, third
        rows_of(n, x, matrix, sizes)
    return shared(work)
