"""Shrinks a capsule: finds the smallest call, by the named dimensions of its op, that is still
wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from core.errors import KernelyardError
from core.installed.registry import Registry
from core.ir.op import Op, find_op
from core.ir.signature import resolve
from core.tensor.tensor import Array
from core.verify.capsules.capsule import Capsule
from core.verify.capsules.replay import recorded_kernel, replay, run_once

Arrays = Mapping[str, Array | None]
_EACH = 8  # sizes up to this are tried one by one
_LENGTH = "length"  # of sequences: a value of `seq_lens`, and no dimension
_LAST = "last rows"  # those that stay of T, where T itself keeps the first


def shrink(capsule: Capsule, backend: str, registry: Registry, *, repeat: int) -> Capsule:
    """Return a capsule of the smallest call that `backend` still gets wrong, with what it gives.

    Each dimension is cut to the smallest size that is wrong; what points to rows or slots is cut
    with it. A call that the definition or the kernel refuses is not wrong.
    """
    op = find_op(capsule.op)
    sizes = _sizes(op, capsule)
    first = dict(sizes)

    def wrong(arrays: Arrays) -> bool:
        try:
            # the outputs are still the large call's: without a source nobody is held to them
            tried = replace(capsule, inputs=dict(arrays), source="")
            return not replay(tried, [backend], registry, repeat=repeat)[1].ok
        except KernelyardError:
            return False

    arrays: Arrays = capsule.inputs
    before: dict[str, int] = {}
    while sizes != before:  # each pass may let another dimension go lower
        before = dict(sizes)
        for name in sorted(sizes, key=lambda n: (n not in ("T", "S", _LAST, _LENGTH), n)):
            cut = partial(cut_to, op, arrays, sizes, name)
            arrays = _least(sizes[name], cut, wrong) or arrays
            sizes = _sizes(op, replace(capsule, inputs=dict(arrays)))
    cuts = ", ".join(f"{n} {first[n]} to {sizes[n]}" for n in sizes
                     if n != _LAST and sizes[n] != first[n])
    made = recorded_kernel(capsule, registry)
    small = replace(capsule, inputs=dict(arrays), reason=f"{capsule.reason}; "
                    + (f"made smaller: {cuts}" if cuts else "no smaller call is wrong"))
    if made is None or made.backend != backend:
        small = replace(small, entry={**small.entry, "kernel": f"{backend}:?"}, source="")
    return replace(small, outputs=_outputs(small, backend, registry))


def cut_to(op: Op, arrays: Arrays, sizes: Mapping[str, int], name: str, size: int,
           ) -> Arrays | None:
    """Return the inputs with one dimension of another size, None where it means nothing.

    Query heads stay a multiple of key/value heads; sequences lose the tokens that T loses.
    """
    dims = {k: v for k, v in sizes.items() if k not in (_LENGTH, _LAST)}
    found = dict(arrays)
    if name == _LAST:
        found.update({p.name: _there(arrays[p.name])[-size:] for p in op.sig.params
                      if p.dims[:1] == ("T",) and arrays[p.name] is not None})
        found["query_starts"] = np.array([0, size], np.int32)
        return found
    if name == _LENGTH:
        found["seq_lens"] = np.minimum(_there(arrays["seq_lens"]), size).astype(np.int32)
        return found
    dims[name] = size
    if name == "Hkv" and "H" in dims:
        dims["H"] = dims["H"] // sizes["Hkv"] * size
    for p in op.sig.params:
        array = arrays[p.name]
        if array is not None:
            ends = [resolve(d, dims) for d in p.dims]
            found[p.name] = np.ascontiguousarray(array[tuple(
                slice(e) if isinstance(e, int) else slice(None) for e in ends)])
    starts, lens = found.get("query_starts"), found.get("seq_lens")
    if starts is not None and lens is not None:
        kept = np.minimum(starts, dims["T"]).astype(np.int32)
        if name == "S" and "T" in dims:  # the rows of the sequences that are left
            return cut_to(op, {**found}, {**sizes, "S": size}, "T", int(starts[-1]))
        found["query_starts"] = kept
        found["seq_lens"] = (lens - (np.diff(starts) - np.diff(kept))).astype(np.int32)
    return found


def _least(size: int, cut: Callable[[int], Arrays | None], wrong: Callable[[Arrays], bool],
           ) -> Arrays | None:
    """Return the smallest cut that is wrong, None where only the whole is.

    Every small size is tried, since a fault may show at some only; then powers of two, and what
    lies between the last that is right and the first that is wrong, by halves.
    """
    right, best, found = 0, size, None

    def worse(tried: int) -> bool:
        nonlocal best, found
        arrays = cut(tried)
        if arrays is None or not wrong(arrays):
            return False
        best, found = tried, arrays
        return True
    powers = (2**k for k in range(_EACH.bit_length(), size.bit_length()))
    for tried in (n for n in (*range(1, _EACH + 1), *powers) if n < size):
        if worse(tried):
            break
        right = tried
    while best > right + 1:
        middle = (right + best) // 2
        if not worse(middle):
            right = middle
    return found


def _sizes(op: Op, capsule: Capsule) -> dict[str, int]:
    specs = {p.name: a for p in op.sig.params if (a := capsule.inputs[p.name]) is not None}
    sizes: dict[str, int] = {}
    for p in op.sig.params:
        for d, n in zip(p.dims, specs[p.name].shape if p.name in specs else (), strict=False):
            if isinstance(d, str) and d.isidentifier():
                sizes[d] = n
    lens = specs.get("seq_lens")
    if lens is not None and "seq_lens" not in op.sig.mutated:
        sizes[_LENGTH] = int(lens.max(initial=0))
        if sizes["S"] == 1 and "query_starts" in specs:
            sizes[_LAST] = sizes["T"]
    return sizes


def _outputs(capsule: Capsule, backend: str, registry: Registry) -> dict[str, Array]:
    found = run_once(find_op(capsule.op), capsule, backend, registry).results
    return {k: a for k, a in found.items() if a is not None}


def _there(array: Array | None) -> Array:
    assert array is not None  # a size comes from it
    return array
