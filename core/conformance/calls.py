"""Test cases from the calls of a model's plans, with inputs made for their shapes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.conformance.cases import Case, Subset, offers
from core.conformance.inputs import make_inputs
from core.errors import KernelyardError, OptionError
from core.files import write_whole
from core.installed.registry import Registry
from core.ir.examples import Example
from core.ir.op import find_op
from core.tensor.dtype import as_dtype
from core.tensor.tensor import TensorSpec


@dataclass(frozen=True)
class ModelCall:
    """Holds what a node of a plan asks of a kernel, as plain data.

    phase    `decode` with one token a sequence, else `prefill`
    inputs   (name, None or (dtype, shape)) of each input
    attrs    (name, value) of each attribute
    context  tokens of the sequence, for ops that read positions or lengths; 0 for others
    nodes    how many nodes of the plan make this call
    """

    op: str
    phase: str
    inputs: tuple[tuple[str, tuple[str, tuple[int, ...]] | None], ...]
    attrs: tuple[tuple[str, Any], ...]
    context: int
    nodes: int = 1

    @property
    def specs(self) -> dict[str, TensorSpec | None]:
        return {name: None if s is None else TensorSpec(tuple(s[1]), as_dtype(s[0]))
                for name, s in self.inputs}

    @property
    def name(self) -> str:
        """Return a name such as `decode_T1_N896_K896_bias` that tells a model's calls apart."""
        op, attrs = find_op(self.op), dict(self.attrs)
        dims = op.bind(self.specs, attrs).dims
        extra = [p.name for p in op.sig.params if p.optional and self.specs[p.name] is not None]
        plain = [f"{k}{v:g}" if isinstance(v, float) else f"{k}{v}" for k, v in attrs.items()
                 if k in op.plain_attributes]
        return "_".join([self.phase, *(f"{k}{v}" for k, v in dims.items()), *extra, *plain,
                         *([f"at{self.context}"] if self.context else [])])

    def case(self, backend: str) -> Case:
        """Return the case of this call on a backend."""
        op, attrs = find_op(self.op), dict(self.attrs)
        dtypes = op.bind(self.specs, attrs).dtypes
        variables = {p.dtype for p in (*op.sig.params, *op.sig.outputs) if p.dtype_is_variable}
        plain = {k: v for k, v in attrs.items() if k != "out_dtype"}
        return Case(op, backend, {k: d for k, d in dtypes.items() if k in variables}, Example(
            self.name, lambda r: make_inputs(op, self.specs, attrs, self.context, r), plain))


def write_calls(path: Path, calls: Sequence[ModelCall]) -> None:
    """Write calls to a file that `read_calls` reads. Raises OptionError where it cannot."""
    try:
        write_whole(path, json.dumps([asdict(c) for c in calls]) + "\n")
    except OSError as error:
        raise OptionError(f"--calls {path} cannot be written: {error.strerror}") from None


def read_calls(path: Path) -> list[ModelCall]:
    """Read a file of `write_calls`. Raises OptionError for one that is not such a file."""
    try:
        found = [_call(entry) for entry in json.loads(path.read_text())]
        for call in found:
            call.name  # noqa: B018 - raises for an unknown op, and for shapes that it rejects
    except OSError as error:
        raise OptionError(f"--calls {path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, KernelyardError) as error:
        raise OptionError(f"--calls {path}: expected a file that `kernelyard conform --model M "
                          f"--calls FILE` wrote; found {type(error).__name__}: {error}") from None
    return found


def _call(entry: Mapping[str, Any]) -> ModelCall:
    inputs = tuple((str(n), None if s is None else (str(s[0]), tuple(int(d) for d in s[1])))
                   for n, s in entry["inputs"])
    return ModelCall(str(entry["op"]), str(entry["phase"]), inputs,
                     tuple((str(k), v) for k, v in entry["attrs"]), int(entry["context"]),
                     int(entry["nodes"]))


def call_cases(calls: Sequence[ModelCall], registry: Registry, backend: str, subset: Subset,
               ) -> Iterator[Case]:
    """Yield the case of each call; of calls with dtypes that no kernel declares, one without an
    example."""
    absent = set()
    for case in (call.case(backend) for call in calls):
        if not subset.has(case.op, case.dtypes):
            continue
        if not any(offers(k, case.dtypes) for k in registry.kernels(backend, case.op.name)):
            case = Case(case.op, backend, case.dtypes, None)
            if case.id in absent:
                continue
            absent.add(case.id)
        yield case
