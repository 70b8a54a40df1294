"""Fused ops: defines an op by a small composition of other ops.

`compose` declares it once; read by a Tracer it is the pattern that the plan looks for, by a
Reference it is the float64 definition. So a fused kernel is tested and cross-checked with no code
of its own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from core.errors import PluginError
from core.ir.graph import Graph, Value
from core.ir.op import Attrs, AttrVar, Cost, Env, Op, Specs, find_op
from core.ir.signature import Dim, resolve
from core.tensor.dtype import DType, as_dtype, f32
from core.tensor.tensor import TensorSpec


@dataclass(eq=False)
class PatternNode:
    op: Op
    inputs: dict[str, Any]
    attrs: dict[str, Any]


@dataclass(frozen=True)
class PatternValue:
    """Names a fused op's own input (`node` None, `name` the parameter), output `name` of a node, or
    a view of another value (`of`) in the dimensions `shape`."""

    node: PatternNode | None
    name: str
    of: PatternValue | None = None
    shape: tuple[Dim, ...] = ()


@dataclass
class Pattern:
    nodes: list[PatternNode] = field(default_factory=list)
    outputs: dict[str, PatternValue] = field(default_factory=dict)


class FusedOp(Op):
    """Defines an op by `compose`: subclasses give a signature, examples and `compose`, no
    reference."""

    #: where places of fused ops overlap, the highest takes its nodes; of equals, the one with most
    priority: ClassVar[int] = 0

    @abstractmethod
    def compose(self, g: Any, *inputs: Any, **attrs: Any) -> Any:  # noqa: ANN401 - read by Tracer and Reference
        """Add the ops with `g.add(op, *inputs, **attrs)`; return the outputs in order.

        `g.view(x, "T", "H*d")` gives x another shape, in dimensions of the op's own signature.
        Outputs are results of ops, not views.
        """

    def reference(self, *inputs: Any, **attrs: Any) -> Any:  # noqa: ANN401
        specs = {p.name: None if a is None else TensorSpec(
            np.shape(a), f32 if p.dtype_is_variable else as_dtype(p.dtype))
            for p, a in zip(self.sig.params, inputs, strict=True)}
        return self.compose(Reference(None, self.sig.unify(self.name, specs).dims), *inputs,
                            **attrs)

    def reference_in(self, compute: type[np.floating[Any]], inputs: Mapping[str, Any], env: Env,
                     attrs: Attrs, *, rounding: bool = False) -> tuple[Any, ...]:
        arrays = self.inputs_in(compute, inputs)
        dtype = env.dtypes.get("A") if rounding else None
        result = self.compose(Reference(dtype, env.dims), *arrays.values(), **attrs)
        return result if isinstance(result, tuple) else (result,)

    def pattern(self, absent: frozenset[str] = frozenset()) -> Pattern:
        """Return the composition as a pattern, with the optional inputs in `absent` left out."""
        tracer = Tracer()
        args = [None if p.name in absent else PatternValue(None, p.name) for p in self.sig.params]
        result = self.compose(tracer, *args, **{k: AttrVar(k) for k in self.attributes})
        values = result if isinstance(result, tuple) else (result,)
        if any(v.of is not None for v in values):
            raise PluginError(f"op {self.name}: compose returns a view; expected results of ops")
        tracer.pattern.outputs = dict(zip(self.result_names, values, strict=True))
        return tracer.pattern

    def declare(self, graph: Graph, values: Sequence[Value | None], attrs: Attrs) -> Any:  # noqa: ANN401
        """Add the composition to a graph; return its outputs in order."""
        env = self.bind({k: None if v is None else v.spec for k, v in self.named(values).items()},
                        attrs)
        return self.compose(_Declaration(graph, env.dims), *values, **attrs)

    def cost(self, inputs: Specs, attrs: Attrs) -> Cost:
        """Count the bytes of the op's own inputs and outputs, and the flops of the ops it is
        composed of."""
        g = Graph(self.name)
        values = [None if s is None else g.input(k, s) for k, s in inputs.items()]
        self.declare(g, values, attrs)
        flops = sum(n.op.cost({k: None if v is None else v.spec for k, v in n.inputs.items()},
                              n.attrs).flops for n in g.nodes)
        return Cost(flops, super().cost(inputs, attrs).nbytes)


class Tracer:
    """Records what `compose` adds."""

    def __init__(self) -> None:
        self.pattern = Pattern()

    def view(self, value: PatternValue, *shape: Dim) -> PatternValue:
        return PatternValue(None, "", value, shape)

    def add(self, op_name: str, *inputs: Any, **attrs: Any) -> Any:  # noqa: ANN401
        op = find_op(op_name)
        node = PatternNode(op, op.named(inputs), op.complete(attrs))
        self.pattern.nodes.append(node)
        results = tuple(PatternValue(node, name) for name in op.result_names)
        return results[0] if len(results) == 1 else results


class _Declaration:
    """Adds what `compose` adds to a graph, with views in the dimensions of one call."""

    def __init__(self, graph: Graph, dims: Mapping[str, Dim]) -> None:
        self.add, self._view, self._dims = graph.add, graph.view, dims

    def view(self, value: Value, *shape: Dim) -> Value:
        return self._view(value, *(resolve(d, self._dims) for d in shape))


class Reference:
    """Computes what `compose` adds with the ops' references, rounding each result if asked."""

    def __init__(self, rounding: DType | None, dims: Mapping[str, Dim]) -> None:
        self.rounding, self.dims = rounding, dims

    def view(self, array: Any, *shape: Dim) -> Any:  # noqa: ANN401
        return array.reshape([resolve(d, self.dims) for d in shape])

    def add(self, op_name: str, *inputs: Any, **attrs: Any) -> Any:  # noqa: ANN401
        op = find_op(op_name)
        full = op.complete(attrs)
        given = {k: full[k] for k in op.plain_attributes}
        result = op.reference(*op.named(inputs).values(), **given)
        if isinstance(result, tuple):
            return tuple(self._round(r) for r in result)
        return self._round(result)

    def _round(self, array: Any) -> Any:  # noqa: ANN401
        if array is None or self.rounding is None or array.dtype.kind != "f":
            return array
        return array.astype(self.rounding.numpy).astype(array.dtype)
