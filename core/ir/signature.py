"""Typed op signatures, read from one line such as

    x A[T,K], weight W[N,K], bias W[N]? -> out O[T,N]

A capital-letter dtype is a variable (A activations, W weights, O outputs, C cache, Q codes), any
other is fixed. Dimensions are names, numbers, or a name with `+1` or `/2`. `?` marks an input that
may be None. An output with no type is an input that the op updates in place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from core.errors import DtypeError, OpError, ShapeError
from core.tensor.dtype import DType, as_dtype
from core.tensor.tensor import TensorSpec

Dim = int | str
_PARAM = re.compile(r"(\w+) (\w+)\[([^\]]*)\](\??)")
_DIM = re.compile(r"([A-Za-z_]\w*)(?:([+/])(\d+))?$")


@dataclass(frozen=True)
class Param:
    """One input or output of a signature."""

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
    """What the names of a signature stand for in one call."""

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
            for want, got in zip(p.dims, spec.shape, strict=True):
                if not _unify_dim(want, got, env):
                    raise ShapeError(
                        f"{op}: `{p.name}` has shape {_show(spec.shape)}, expected "
                        f"{_show(p.dims)} where {want} = {resolve(want, env.dims)}")
        return env

    def results(self, op: str, env: Env) -> dict[str, TensorSpec]:
        """The outputs' specs under a complete `env`."""
        return {p.name: TensorSpec(
                    tuple(resolve(d, env.dims) for d in p.dims),
                    env.dtypes[p.dtype] if p.dtype_is_variable else as_dtype(p.dtype))
                for p in self.outputs}


def resolve(dim: Dim, dims: Mapping[str, Dim]) -> Dim:
    """The value of a dimension such as `T`, `S+1` or `d/2`; stays a name where that is unbound."""
    if isinstance(dim, int):
        return dim
    if dim in dims:
        return dims[dim]
    name, sign, number = _parse(dim)
    value = dims.get(name, name)
    if sign is None:
        return value
    if isinstance(value, str):
        return f"{value}{sign}{number}"
    return value + number if sign == "+" else value // number


@cache
def _parse(dim: str) -> tuple[str, str | None, int]:
    """(name, `+`, `/` or None, the number) of a dimension; kept, as each step's plan asks again."""
    match = _DIM.match(dim)
    if match is None:
        raise ShapeError(f"dimension {dim!r} is not a name, a number, or a name with +n or /n")
    return match[1], match[2], int(match[3] or 0)


def _params(text: str) -> tuple[Param, ...]:
    return tuple(Param(name, dtype, tuple(int(d) if d.isdigit() else d
                                          for d in map(str.strip, dims.split(",")) if d), bool(opt))
                 for name, dtype, dims, opt in _PARAM.findall(text))


def _unify_dtype(op: str, p: Param, spec: TensorSpec, env: Env) -> None:
    want = env.dtypes.setdefault(p.dtype, spec.dtype) if p.dtype_is_variable else as_dtype(p.dtype)
    if want != spec.dtype:
        raise DtypeError(f"{op}: `{p.name}` is {spec.dtype.name}, expected {want.name}")


def _unify_dim(want: Dim, got: Dim, env: Env) -> bool:
    if isinstance(want, str) and _parse(want)[0] not in env.dims:
        name, sign, number = _parse(want)
        if sign is None:
            env.dims[name] = got
            return True
        if isinstance(got, int):
            solved = got - number if sign == "+" else got * number
            if solved < 0:
                return False
            env.dims[name] = solved
            return True
        suffix = f"{sign}{number}"
        if got.endswith(suffix):
            env.dims[name] = got.removesuffix(suffix)
            return True
        return False
    return resolve(want, env.dims) == got


def _show(dims: tuple[Dim, ...]) -> str:
    return f"[{', '.join(map(str, dims))}]"
