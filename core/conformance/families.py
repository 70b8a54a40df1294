"""Check families of kernels: each kernel of one gives a row the same bits, alone and among up to
512 rows; those of a fused op the bits of its parts'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.conformance.cases import EVERYTHING, Subset, cells, dtype_id, offers
from core.conformance.properties.rows import (
    axis,
    join_rows,
    small_examples,
    split_results,
    take_rows,
)
from core.conformance.properties.subject import Arrays, Refused, Subject
from core.errors import NoKernelError
from core.installed.registry import Registry
from core.ir.examples import ExampleInputs
from core.ir.fusion import FusedOp
from core.ir.op import OPS, Op, find_op
from core.plugins.kernel import Kernel
from core.runtime.run_op import run_kernel
from core.tensor.dtype import DType
from core.tensor.tensor import Array

COUNTS = (512, 64, 17, 16, 9, 8, 7, 2, 1)
EXAMPLES = 4  # of an op, spread over all
DRAWS = 8  # of an example's inputs; their rows are repeated
#: an input that says where a row goes in a state, the states, and the axes of these that it counts
PLACES = {"slots": (("cache", "cache_scales"), slice(1, 3)), "places": (("last",), slice(0, 1))}


class Differs(AssertionError):
    """Says which kernel gives a row other bits."""

    def __init__(self, kernel: str, message: str) -> None:
        super().__init__(message)
        self.kernel = kernel


@dataclass(frozen=True)
class FamilyCase:
    """Holds the kernels of one op that a family has, with one set of dtypes."""

    registry: Registry
    kernels: tuple[Kernel, ...]
    dtypes: Mapping[str, DType]

    @property
    def id(self) -> str:
        """Return an id such as `one_family-cpu_numpy-linear-rows-float32`."""
        first = self.kernels[0]
        return "-".join(["one_family", first.backend, first.op, str(first.family),
                         dtype_id(self.dtypes)])

    def check(self) -> None:
        """Raise Differs where a row's bits differ, Refused where a kernel takes no example."""
        taken, op = set(), OPS[self.kernels[0].op]
        for steps in _examples(self):
            known: dict[tuple[str, int], tuple[str, bytes]] = {}
            for arrays, attrs, rows in steps:
                for kernel in self.kernels:
                    try:
                        subject = Subject(self.registry, kernel, self.dtypes)
                        case = subject.case(arrays, attrs)
                        found = subject.run(case)
                    except Refused:
                        continue
                    taken.add(kernel)
                    by = f"{kernel.id} among {len(rows)} rows"
                    _compare(known, _by_row(op, case.arrays, found), rows, by, kernel.name)
                    if isinstance(op, FusedOp) and kernel is self.kernels[0]:
                        parts = _Parts(kernel, self.registry)
                        found = parts.run(op, case.arrays, op.complete(case.attrs))
                        by = f"parts by family {kernel.family} among {len(rows)} rows"
                        _compare(known, _by_row(op, case.arrays, found), rows, by, kernel.name)
        if len(taken) < len(self.kernels):
            raise Refused("no example of several rows is taken by " + ", ".join(
                k.id for k in self.kernels if k not in taken))


def family_cases(registry: Registry, backend: str, subset: Subset = EVERYTHING,
                 ) -> Iterator[FamilyCase]:
    """Yield a case for each op, family and set of dtypes of a backend."""
    for op in OPS.values():
        for dtypes in cells(op):
            offered = [k for k in registry.kernels(backend, op.name) if offers(k, dtypes)]
            for family in dict.fromkeys(k.family for k in offered if k.family is not None):
                if subset.has(op, dtypes):
                    yield FamilyCase(registry, tuple(k for k in offered if k.family == family),
                                     dtypes)


@dataclass(frozen=True)
class _Parts:
    """Computes what a fused op composes, each op by a kernel of the family."""

    kernel: Kernel
    registry: Registry

    def run(self, op: FusedOp, arrays: Arrays, attrs: Mapping[str, Any]) -> Arrays:
        result = op.compose(self, *arrays.values(), **attrs)
        return dict(zip(op.result_names, result if isinstance(result, tuple) else (result,),
                        strict=True))

    def add(self, op_name: str, *inputs: Array | None, **attrs: Any) -> Any:  # noqa: ANN401 - one array or several
        op, refused = find_op(op_name), [f"has no kernel for {op_name}"]
        for kernel in self.registry.kernels(self.kernel.backend, op_name):
            if kernel.family == self.kernel.family:
                try:
                    results = run_kernel(op, op.named(inputs), attrs, backend=kernel.backend,
                                         kernel=kernel.name, registry=self.registry)
                except NoKernelError as error:
                    refused.append(str(error))
                    continue
                return results[0] if len(results) == 1 else results
        raise Differs(self.kernel.name, f"family {self.kernel.family} " + "\n".join(refused))


Steps = Iterator[tuple[Arrays, Mapping[str, Any], Array]]


def _examples(case: FamilyCase) -> Iterator[Steps]:
    """Yield, for each example, steps: inputs, attributes, and which of 512 rows they compute."""
    op = OPS[case.kernels[0].op]
    if op.name == "attention":
        yield from (_ragged(size, case.dtypes["C"].short == "i8") for size in (64, 80))
    elif axis(op) is not None:
        small = small_examples(op, dtype_id(case.dtypes), tuple(case.dtypes.items()))
        for example in small[::max(1, -(-len(small) // EXAMPLES))]:
            rng = np.random.default_rng(len(small))
            many = [{p.name: made.get(p.name) for p in op.sig.params} for made in (
                example.make(ExampleInputs(rng)) for _ in range(DRAWS))]
            arrays = _with_places(join_rows(op, many, COUNTS[0]), rng)
            yield ((take_rows(op, arrays, rows), example.attrs, rows)
                   for rows in (rng.permutation(COUNTS[0])[:n] for n in COUNTS))


def _with_places(arrays: Arrays, rng: np.random.Generator) -> Arrays:
    """Give each row a place of its own in a state that has room for all."""
    for name, (states, axes) in PLACES.items():
        if name in arrays and states[0] in arrays:
            for state in states:
                if (array := arrays.get(state)) is not None:
                    shape, at = list(array.shape), axes.start
                    shape[at] = -(-COUNTS[0] // int(np.prod(shape[at + 1:axes.stop])))
                    arrays[state] = np.zeros(shape, array.dtype)
            arrays[name] = rng.permutation(COUNTS[0]).astype(np.int32)
    return arrays


def _by_row(op: Op, arrays: Arrays, results: Arrays) -> Arrays:
    """Return the results by row; of a state what lies at the rows' places."""
    if op.name == "attention":
        return results
    by_row, rest = split_results(op, results)
    for name, (states, axes) in PLACES.items():
        for state in states:
            if (array := rest.get(state)) is not None and (places := arrays[name]) is not None:
                shape = (*array.shape[:axes.start], -1, *array.shape[axes.stop:])
                by_row[state] = np.moveaxis(array.reshape(shape).take(places, axes.start),
                                            axes.start, 0)
    return by_row


def _compare(known: dict[tuple[str, int], tuple[str, bytes]], results: Arrays, rows: Array,
             by: str, kernel: str) -> None:
    for name, array in results.items():
        if array is not None:
            for row, value in zip(rows.tolist(), array, strict=True):
                other, bits = known.setdefault((name, row), (by, value.tobytes()))
                if bits != value.tobytes():
                    raise Differs(kernel, f"row {row} of `{name}` has other bits by {by} than by "
                                  f"{other}")


def _ragged(size: int, quantized: bool) -> Steps:
    """Yield steps of four sequences in random blocks: in each, some tokens of some of them."""
    rng, lengths, block, heads, kv_heads = np.random.default_rng(size), (300, 150, 40, 22), 16, 4, 2
    counts = [-(-n // block) for n in lengths]
    order, starts = rng.permutation(sum(counts)), np.cumsum([0, *lengths])
    table = np.full((len(lengths), max(counts)), -1, np.int32)
    for row, part in zip(table, np.split(order, np.cumsum(counts)[:-1]), strict=True):
        row[:len(part)] = part
    r = ExampleInputs(rng)
    shape = (2, len(order), block, kv_heads, size)
    rows = int(np.prod(shape[:-1]))
    cache = (r.codes(8, rows, size) if quantized else r.normal(rows, size)).reshape(shape)
    scales = (abs(r.normal(*shape[:-1])) + 0.1) / 64 if quantized else None
    q = r.normal(sum(lengths), heads, size)
    for count in COUNTS:
        share = rng.multivariate_hypergeometric(lengths, count)
        ends = share + [int(rng.integers(0, n - mine + 1))
                        for n, mine in zip(lengths, share, strict=True)]
        taken = np.concatenate([np.arange(end - n, end) + start for n, end, start in
                                zip(share, ends, starts[:-1], strict=True)])
        yield ({"q": q[taken], "cache": cache, "cache_scales": scales, "block_table": table,
                "query_starts": np.cumsum([0, *share], dtype=np.int32),
                "seq_lens": np.where(share > 0, ends, 0).astype(np.int32)},
               {"scale": size**-0.5}, taken)
