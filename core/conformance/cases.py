"""The matrix: has one case for each op, backend, dtype combination and example."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from core.errors import OptionError
from core.installed.registry import Registry
from core.ir.examples import Example, ExampleInputs
from core.ir.op import OPS, Op
from core.plugins.kernel import Call, Kernel
from core.tensor.dtype import DType, as_dtype, i4x2
from core.tensor.tensor import Array, TensorSpec
from core.verify.compare import Expected
from core.verify.expected import expectations


@dataclass(frozen=True)
class Case:
    """Describes one cell. `example` is None where no kernel of the backend takes these dtypes at
    all."""

    op: Op
    backend: str
    dtypes: Mapping[str, DType]
    example: Example | None

    @property
    def id(self) -> str:
        """Return an id such as `linear-cpu_numpy-float32.W=bf16-T1_N5632_K2048`."""
        return "-".join([self.op.name, self.backend, dtype_id(self.dtypes),
                         self.example.name if self.example else "none"])

    @cached_property
    def arrays(self) -> dict[str, Array | None]:
        """Return the inputs, seeded by op, dtypes and example (not by backend: all get the
        same)."""
        assert self.example is not None  # a cell without an example is skipped before
        key = f"{self.op.name}-{dtype_id(self.dtypes)}-{self.example.name}"
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
        made = self.example.make(ExampleInputs(np.random.default_rng(seed)))
        arrays: dict[str, Array | None] = {}
        for p in self.op.sig.params:
            array = made.get(p.name)
            if array is not None and array.dtype.kind == "f":
                wanted = self.dtypes[p.dtype] if p.dtype_is_variable else as_dtype(p.dtype)
                array = array.astype(wanted.numpy)
            arrays[p.name] = array
        return arrays

    @property
    def attrs(self) -> dict[str, Any]:
        """Return the example's attributes, with the output dtype where the op has one."""
        assert self.example is not None
        attrs = dict(self.example.attrs)
        if "out_dtype" in self.op.attributes:
            attrs["out_dtype"] = self.dtypes["O"].short
        return attrs

    @cached_property
    def expected(self) -> dict[str, Expected]:
        """Return the reference of every result."""
        return expectations(self.op, self.arrays, self.attrs)

    @property
    def call(self) -> Call:
        """Return the call that a kernel's `supports` judges."""
        specs = {p.name: None if a is None else TensorSpec(a.shape, i4x2 if p.dtype == "Q" and
                 a.dtype == np.uint8 else as_dtype(a.dtype))
                 for p in self.op.sig.params for a in (self.arrays[p.name],)}
        attrs = self.op.complete(self.attrs)
        env = self.op.bind(specs, attrs)
        dims = {k: d for k, d in env.dims.items() if isinstance(d, int)}
        return Call(self.op, specs, attrs, dims, env.dtypes)


def dtype_id(dtypes: Mapping[str, DType]) -> str:
    """Return `float16` where all variables agree, else the first one's name and the differing
    others."""
    if not dtypes:
        return "int32"
    first = next(iter(dtypes.values()))
    return first.name + "".join(f".{k}={d}" for k, d in dtypes.items() if d != first)


@dataclass(frozen=True)
class Subset:
    """Selects a part of the vocabulary: these ops and dtypes, or all where empty. A dtype is a
    cell's id, such as `float32.W=bf16`, or one name for the cells in which it occurs."""

    ops: frozenset[str] = frozenset()
    dtypes: frozenset[str] = frozenset()

    def check(self) -> None:
        """Raise OptionError for a name that selects nothing, listing what there is."""
        for name in sorted(self.ops - set(OPS)):
            raise OptionError(f"--op {name}: unknown op; known: {', '.join(OPS)}")
        known = {name for op in OPS.values() for d in cells(op) for name in _dtype_names(d)}
        for name in sorted(self.dtypes - known):
            raise OptionError(f"--dtype {name}: no op is tested with it; expected one of "
                              f"{', '.join(sorted(known))}")

    def has(self, op: Op, dtypes: Mapping[str, DType]) -> bool:
        return ((not self.ops or op.name in self.ops)
                and (not self.dtypes or bool(self.dtypes & _dtype_names(dtypes))))


EVERYTHING = Subset()


def cells(op: Op) -> list[dict[str, DType]]:
    """Return the dtype combinations that the matrix holds for an op."""
    return [{var: as_dtype(d) for var, d in names.items()} for names in op.dtype_cases]


def examples_of(op: Op, dtypes: Mapping[str, DType], *, large: bool = False) -> list[Example]:
    """Return the op's examples that apply to these dtypes."""
    return [s for s in op.examples() if s.large == large and _applies(s, dtypes)]


def offers(kernel: Kernel, dtypes: Mapping[str, DType]) -> bool:
    """Return whether the kernel declares these dtypes."""
    return all(dtypes[var] in allowed for var, allowed in kernel.dtypes.items())


def matrix(registry: Registry, backend: str, *, large: bool = False, subset: Subset = EVERYTHING,
           ) -> Iterator[Case]:
    """Return every case of a backend, in the order of the vocabulary."""
    for op in OPS.values():
        kernels = registry.kernels(backend, op.name)
        for dtypes in cells(op):
            if not subset.has(op, dtypes):
                continue
            if not any(offers(k, dtypes) for k in kernels):
                yield Case(op, backend, dtypes, None)
                continue
            for example in examples_of(op, dtypes, large=large):
                yield Case(op, backend, dtypes, example)


def cases_of(kernel: Kernel) -> Iterator[Case]:
    """Return the cases of a kernel's op with dtypes that it declares, without the large ones."""
    op = OPS[kernel.op]
    for dtypes in cells(op):
        if offers(kernel, dtypes):
            for example in examples_of(op, dtypes):
                yield Case(op, kernel.backend, dtypes, example)


def _dtype_names(dtypes: Mapping[str, DType]) -> set[str]:
    return {dtype_id(dtypes), *(n for d in dtypes.values() for n in (d.name, d.short))}


def _applies(example: Example, dtypes: Mapping[str, DType]) -> bool:
    return all(dtypes[var].short in allowed.split()
               for var, allowed in (example.only or {}).items())
