"""Work that threads take as they become free: a core that other programs use, or that memory serves
later, does less of it. What is computed does not depend on who computes it."""

from numba import types
from numba.extending import intrinsic

from cpu_numba.kernels.compiled import emit


@intrinsic
def claim(typing_context, counter, count):
    """The next `count` pieces of work: their first number. counter[0] is what is claimed so far."""
    def code(context, builder, signature, args):
        place = emit.pointer(context, builder, counter, args[0], emit.I64(0), emit.I64)
        return builder.atomic_rmw("add", place, args[1], "monotonic")
    return types.intp(counter, types.intp), code
