"""Reads typed op signatures from one line such as

    x A[T,K], weight W[N,K], bias W[N]? -> out O[T,N]

A capital-letter dtype is a variable (A activations, W weights, O outputs, C cache, Q codes), any
other is fixed. Dimensions are names, numbers, a name with `+1` or `/2`, or a product such as `T*H`.
`?` marks an input that may be None. An output with no type is an input that the op updates in
place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from core.errors import DtypeError, OpError, ShapeError
from core.tensor.dtype import DType, as_dtype
from core.tensor.tensor import TensorSpec

Dim = int | str
_PARAM = re.compile(r"(\w+) (\w+)\[([^\]]*)\](\??)")
_DIM = re.compile(r"([A-Za-z_]\w*)([+/])(\d+)$|(\w+(?:\*\w+)*)$")


@dataclass(frozen=True)
class Param:
    """Describes one input or output of a signature."""

    name: str
    dtype: str
    dims: tuple[Dim, ...]
    optional: bool = False

    @property
    def dtype_is_variable(self) -> bool:
        return self.dtype.isupper()

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


@dataclass
class Env:
    """Maps the names of a signature to their values in one call."""

    dims: dict[str, Dim] = field(default_factory=dict)
    dtypes: dict[str, DType] = field(default_factory=dict)


@dataclass(frozen=True)
class Signature:
    """`mutated` are inputs updated in place; `outputs` are the new tensors."""

    params: tuple[Param, ...]
    outputs: tuple[Param, ...]
    mutated: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Signature:
        before, _, after = text.partition("->")
        outputs = _params(after)
        typed = {p.name for p in outputs}
        bare = re.sub(_PARAM, r"\1", after)
        names = [n.strip() for n in bare.split(",") if n.strip()]
        return cls(_params(before), outputs, tuple(n for n in names if n not in typed))

    def unify(self, op: str, inputs: Mapping[str, TensorSpec | None]) -> Env:
        """Bind every name from the inputs. Raises ShapeError or DtypeError naming the parameter."""
        env = Env()
        products: list[tuple[Param, TensorSpec]] = []  # with a product of which too little is known
        for p in self.params:
            spec = inputs.get(p.name)
            if spec is None:
                if not p.optional:
                    raise OpError(f"{op}: input `{p.name}` is missing, expected {p}")
                continue
            _unify_dtype(op, p, spec, env)
            if len(spec.shape) != len(p.dims):
                raise ShapeError(f"{op}: `{p.name}` has shape {_show(spec.shape)}, "
                                 f"expected {len(p.dims)} axes {_show(p.dims)}")
            if not _unify_shape(op, p, spec, env):
                products.append((p, spec))
        for p, spec in products:
            if not _unify_shape(op, p, spec, env):
                raise ShapeError(f"{op}: `{p.name}` has shape {_show(spec.shape)}; no other input "
                                 f"tells the factors of {_show(p.dims)}")
        return env

    def results(self, op: str, env: Env) -> dict[str, TensorSpec]:
        """Return the outputs' specs under a complete `env`."""
        return {p.name: TensorSpec(
                    tuple(resolve(d, env.dims) for d in p.dims),
                    env.dtypes[p.dtype] if p.dtype_is_variable else as_dtype(p.dtype))
                for p in self.outputs}


def resolve(dim: Dim, dims: Mapping[str, Dim]) -> Dim:
    """Return the value of a dimension such as `T`, `S+1`, `d/2` or `T*H`.

    It stays a name, such as `T*32`, where a part is unbound.
    """
    if isinstance(dim, int):
        return dim
    if dim in dims:
        return dims[dim]
    factors, sign, number = _parse(dim)
    if sign is not None:
        value = dims.get(factors[0], factors[0])
        if isinstance(value, str):
            return f"{value}{sign}{number}"
        return value + number if sign == "+" else value // number
    return _product([_value(f, dims) for f in factors])


def _value(factor: str, dims: Mapping[str, Dim]) -> Dim:
    return int(factor) if factor.isdigit() else dims.get(factor, factor)


def _product(values: list[Dim]) -> Dim:
    """Return a number, or names joined by `*` with the numbers' product last."""
    names = [str(v) for v in values if isinstance(v, str)]
    known = math.prod(v for v in values if isinstance(v, int))
    return "*".join([*names, *([str(known)] if known != 1 else [])]) if names else known


@cache
def _parse(dim: str) -> tuple[tuple[str, ...], str | None, int]:
    """Split a dimension into factors, `+`, `/` or None, and the number; kept, as each step's plan
    asks again."""
    match = _DIM.match(dim)
    if match is None:
        raise ShapeError(f"dimension {dim!r} is not a name, a number, a product such as T*H, or a "
                         "name with +n or /n")
    if match[1] is not None:
        return (match[1],), match[2], int(match[3])
    return tuple(match[4].split("*")), None, 0


def _params(text: str) -> tuple[Param, ...]:
    return tuple(Param(name, dtype, tuple(int(d) if d.isdigit() else d
                                          for d in map(str.strip, dims.split(",")) if d), bool(opt))
                 for name, dtype, dims, opt in _PARAM.findall(text))


def _unify_dtype(op: str, p: Param, spec: TensorSpec, env: Env) -> None:
    want = env.dtypes.setdefault(p.dtype, spec.dtype) if p.dtype_is_variable else as_dtype(p.dtype)
    if want != spec.dtype:
        raise DtypeError(f"{op}: `{p.name}` is {spec.dtype.name}, expected {want.name}")


def _unify_shape(op: str, p: Param, spec: TensorSpec, env: Env) -> bool:
    """Bind the names of one shape; False where a product has two unbound factors."""
    complete = True
    for want, got in zip(p.dims, spec.shape, strict=True):
        fits = _unify_dim(want, got, env)
        if fits is False:
            raise ShapeError(f"{op}: `{p.name}` has shape {_show(spec.shape)}, expected "
                             f"{_show(p.dims)} where {want} = {resolve(want, env.dims)}")
        complete &= fits is not None
    return complete


def _unify_dim(want: Dim, got: Dim, env: Env) -> bool | None:
    """Bind a dimension's name; False if it contradicts, None if that cannot be told yet."""
    if isinstance(want, int):
        return want == got
    factors, sign, number = _parse(want)
    unbound = [f for f in factors if not f.isdigit() and f not in env.dims]
    if not unbound:
        return resolve(want, env.dims) == got
    if len(unbound) > 1:
        return None
    if sign is not None:
        solved = _undo(got, sign, number)
    else:
        others = [_value(f, env.dims) for f in factors if f != unbound[0]]
        solved = got if not others else _divide(got, _product(others))
    if solved is None:
        return False
    env.dims[unbound[0]] = solved
    return True


def _undo(got: Dim, sign: str, number: int) -> Dim | None:
    """Return x of `x+number` or `x/number` = got, None if there is none."""
    if isinstance(got, str):
        suffix = f"{sign}{number}"
        return got.removesuffix(suffix) if got.endswith(suffix) else None
    solved = got - number if sign == "+" else got * number
    return solved if solved >= 0 else None


def _divide(got: Dim, by: Dim) -> Dim | None:
    """Return x of `x*by` = got, None if there is none."""
    (names, number), (known, divisor) = _split(got), _split(by)
    for name in known:
        if name not in names:
            return None
        names.remove(name)
    return _product([*names, number // divisor]) if divisor and number % divisor == 0 else None


def _split(dim: Dim) -> tuple[list[str], int]:
    """Split a product into its names and its number."""
    factors = _parse(dim)[0] if isinstance(dim, str) else (str(dim),)
    return ([f for f in factors if not f.isdigit()],
            math.prod(int(f) for f in factors if f.isdigit()))


def _show(dims: tuple[Dim, ...]) -> str:
    return f"[{', '.join(map(str, dims))}]"
