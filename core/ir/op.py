"""Op: defines one operation, independent of every backend.

The signature types it, `reference` defines it (slow, obvious, in the float type of its inputs), the
examples exercise it and the tolerance says how far a kernel may be from the float64 reference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from core.errors import ClashError, DtypeError, OpError
from core.ir.examples import ErrorExample, Example
from core.ir.signature import Dim, Env, Signature
from core.ir.tolerance import Tolerance
from core.reading import shown
from core.tensor.dtype import as_dtype, bf16
from core.tensor.tensor import Array, TensorSpec

Attrs = Mapping[str, Any]
Specs = Mapping[str, TensorSpec | None]
REQUIRED = object()


@dataclass(frozen=True)
class Attr:
    """Declares an attribute. A structural one shows in the output's spec: kernels don't take it."""

    type: type
    default: Any = REQUIRED
    structural: bool = False


@dataclass(frozen=True)
class AttrVar:
    """Stands for a fused op's own attribute while its composition is traced into a pattern."""

    name: str


@dataclass(frozen=True)
class Cost:
    """Counts floating point operations, and the least bytes that must move."""

    flops: int
    nbytes: int


class Op(ABC):
    """Defines an operation: subclasses give `name`, `signature`, `attributes`, `dtype_cases` and
    the methods below."""

    name: ClassVar[str]
    signature: ClassVar[str]
    attributes: ClassVar[dict[str, Attr]] = {}
    #: the dtype combinations that the test matrix covers: variable -> dtype name
    dtype_cases: ClassVar[Sequence[Mapping[str, str]]]
    tolerance: ClassVar[Tolerance]
    #: a row of the results depends on no other row of the tokens or sequences, but through a state
    independent_rows: ClassVar[bool] = True
    sig: ClassVar[Signature]

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "signature" in cls.__dict__:
            cls.sig = Signature.parse(cls.signature)
        for old, now in (("samples", "examples"), ("error_samples", "error_examples")):
            if old in cls.__dict__:  # their names in plugin API 1
                setattr(cls, now, cls.__dict__[old])

    @abstractmethod
    def reference(self, *inputs: Any, **attrs: Any) -> Any:  # noqa: ANN401 - one array or several
        """Compute the op by its definition. Floats arrive in one float type, which the result
        keeps."""

    @abstractmethod
    def examples(self) -> list[Example]:
        """Return inputs that exercise the op: models' own shapes, odd ones, empty ones."""

    @abstractmethod
    def error_examples(self) -> list[ErrorExample]:
        """Return inputs that must be rejected."""

    def check(self, env: Env, attrs: Attrs) -> None:  # noqa: B027 - optional: most ops add nothing
        """Complete `env` from the attributes, and raise OpError for what a signature cannot say."""

    def condition(self, inputs: Mapping[str, Any], attrs: Attrs) -> float:
        """Return how much these inputs amplify a rounding error, 1 for most ops: the tolerance's
        ULPs are multiplied by it. `inputs` are in float64."""
        return 1.0

    def check_values(self, inputs: Mapping[str, Any]) -> None:  # noqa: B027 - most need none
        """Raise OpError for index values that point nowhere. `run_op` asks; a session's indices
        are right by construction."""

    def writes(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the index of what a call may change in each input that it updates in place; one
        left out may change anywhere. Lets a check compare a few rows of a KV cache instead of all.
        """
        return {}

    def cost(self, inputs: Specs, attrs: Attrs) -> Cost:
        """Return the cost; by default each input is read once, each output written once, with one
        operation an output."""
        specs = [s for s in inputs.values() if s is not None]
        outs = list(self.infer(inputs, attrs).values())
        flops = sum(o.nbytes // o.dtype.itemsize for o in outs)
        return Cost(flops, sum(s.nbytes for s in [*specs, *outs]))

    def complete(self, attrs: Attrs) -> dict[str, Any]:
        """Return attributes, defaults filled in. Raises OpError for unknown, missing or mistyped
        ones."""
        unknown = sorted(set(attrs) - set(self.attributes))
        if unknown:
            raise OpError(f"{self.name}: unknown attribute {', '.join(unknown)}; expected "
                          f"{', '.join(self.attributes) or 'none'}")
        full: dict[str, Any] = {}
        for key, attr in self.attributes.items():
            value = attrs.get(key, attr.default)
            if value is REQUIRED:
                raise OpError(f"{self.name}: attribute `{key}` ({attr.type.__name__}) is missing")
            if isinstance(value, AttrVar):
                full[key] = value
                continue
            if attr.type is float and isinstance(value, (int, np.number)):
                with suppress(OverflowError):  # then it is refused below
                    value = float(value)
            if not isinstance(value, attr.type) and (value is not None or attr.default is not None):
                raise OpError(f"{self.name}: attribute `{key}` is {shown(value)}, expected "
                              f"{attr.type.__name__}")
            full[key] = value
        return full

    def bind(self, inputs: Specs, attrs: Attrs) -> Env:
        """Unify the signature with these inputs and check the attributes."""
        unknown = sorted(set(inputs) - {p.name for p in self.sig.params})
        if unknown:
            raise OpError(f"{self.name}: unknown input {', '.join(unknown)}; expected "
                          f"{', '.join(p.name for p in self.sig.params)}")
        env = self.sig.unify(self.name, inputs)
        self.check(env, attrs)
        return env

    def infer(self, inputs: Specs, attrs: Attrs) -> dict[str, TensorSpec]:
        """Return the specs of the new outputs. Raises OpError for inputs outside the definition."""
        return self.sig.results(self.name, self.bind(inputs, attrs))

    def named(self, inputs: Sequence[Any]) -> dict[str, Any]:
        """Return positional inputs by parameter name; missing optional ones become None."""
        params = self.sig.params
        if len(inputs) > len(params):
            raise OpError(f"{self.name} takes {len(params)} inputs "
                          f"({', '.join(p.name for p in params)}), got {len(inputs)}")
        padded = [*inputs, *[None] * (len(params) - len(inputs))]
        return {p.name: value for p, value in zip(params, padded, strict=True)}

    def reference_in(self, compute: type[np.floating[Any]], inputs: Mapping[str, Any], env: Env,
                     attrs: Attrs, *, rounding: bool = False) -> tuple[Any, ...]:
        """Run the definition with every float input converted to `compute`; one array a result.

        With float64 this is the oracle; with float32 it shows what arithmetic alone may do. With
        `rounding`, a composed op also rounds its intermediates to the activations' dtype.
        """
        given = {k: attrs[k] for k in self.plain_attributes}
        result = self.reference(*self.inputs_in(compute, inputs).values(), **given)
        return result if isinstance(result, tuple) else (result,)

    def inputs_in(self, compute: type[np.floating[Any]], inputs: Mapping[str, Any],
                  ) -> dict[str, Any]:
        """Return the inputs with every float one converted to `compute`. Those that the op updates
        are copies; the others may be the caller's own, and cannot be written to."""
        arrays: dict[str, Any] = {}
        for key, array in inputs.items():
            if array is not None:
                kind = compute if _is_float(array) else array.dtype
                array = array.astype(kind, copy=key in self.sig.mutated).view()
                array.flags.writeable = key in self.sig.mutated
            arrays[key] = array
        return arrays

    @property
    def plain_attributes(self) -> list[str]:
        """List the attributes that kernels and the reference take as keywords."""
        return [k for k, a in self.attributes.items() if not a.structural]

    @property
    def weight_params(self) -> frozenset[str]:
        """Return the inputs that are constants of a model: those of dtype W, B or Q, and their
        scales."""
        names = {p.name for p in self.sig.params if p.dtype in ("W", "B", "Q")}
        return frozenset(names | ({"scales", "zeros"} if "codes" in names else set()))

    @property
    def result_names(self) -> tuple[str, ...]:
        """Return the names of the op's results, in order: in-place inputs first, then new
        outputs."""
        return (*self.sig.mutated, *(p.name for p in self.sig.outputs))


OPS: dict[str, Op] = {}


def register_op(op: Op) -> None:
    """Add an op to the vocabulary; the same one again, by a second Registry, changes nothing.
    Raises ClashError if its name is taken by another definition."""
    if op.name in OPS and type(OPS[op.name]) is not type(op):
        raise ClashError(f"op {op.name!r} is already defined by {type(OPS[op.name]).__module__}; "
                         "this one is left out: give it the namespace of its plugin, as in "
                         f"'PLUGIN.{op.name}'")
    OPS.setdefault(op.name, op)


def find_op(name: str) -> Op:
    """Return the op of that name. Raises OpError listing the known ones."""
    if not isinstance(name, str) or name not in OPS:
        raise OpError(f"unknown op {shown(name)}; known: {', '.join(sorted(OPS))}")
    return OPS[name]


def _is_float(array: Array) -> bool:
    return array.dtype.kind == "f" or array.dtype == bf16.numpy


def out_dtype(env: Env, attrs: Attrs, var: str = "O", default: str = "A") -> None:
    """Resolve an output dtype variable from the attribute `out_dtype` (None: like `default`)."""
    chosen = attrs.get("out_dtype")
    env.dtypes[var] = as_dtype(chosen) if chosen is not None else env.dtypes[default]
    if not env.dtypes[var].is_float:
        raise DtypeError(f"out_dtype is {shown(chosen)}, expected f32, f16 or bf16")


def need(condition: bool, message: str, error: type[OpError] = OpError) -> None:
    """Raise `error(message)` unless `condition`."""
    if not condition:
        raise error(message)


def divisible(value: Dim, by: Dim) -> bool:
    """Return whether `by` divides `value`; True while either is still a name."""
    return isinstance(value, str) or isinstance(by, str) or (by > 0 and value % by == 0)


__all__ = ["OPS", "Attr", "AttrVar", "Attrs", "Cost", "Env", "Op", "Specs", "divisible", "find_op",
           "need", "out_dtype", "register_op"]
