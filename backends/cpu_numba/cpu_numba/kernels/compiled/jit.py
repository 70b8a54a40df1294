"""Compiles functions without what nobody calls: a sixth of the time of a first start."""

import numba


def njit(function=None, **options):
    """Compile as Numba's `njit` does, but without an entry point for C, and of a function with
    `_nrt=False`, which only compiled ones call, without the one for Python."""
    if function is not None:
        return numba.njit(no_cfunc_wrapper=True)(function)
    return numba.njit(no_cfunc_wrapper=True, no_cpython_wrapper="_nrt" in options, **options)
