"""Graph: declares a model's computation. It holds ops over named values, and no kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.errors import OpError, ShapeError
from core.ir.op import Op, find_op
from core.ir.signature import Dim, resolve
from core.tensor.tensor import TensorSpec


@dataclass(eq=False)
class Value:
    """Describes a graph's tensor. `kind`: input (set each step), weight, state (kept between
    steps), node.

    `alias_of` is the value whose memory this one shares: a view (`is_view`), or an in-place update.
    `root` owns the memory.
    """

    name: str
    spec: TensorSpec
    kind: str
    producer: Node | None = None
    alias_of: Value | None = None
    root: Value = field(init=False, repr=False)
    is_view: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.root = self if self.alias_of is None else self.alias_of.root
        self.is_view = self.alias_of is not None and self.producer is None

    def __str__(self) -> str:
        return f"%{self.name}: {self.spec}"


@dataclass(eq=False)
class Node:
    """Applies one op to values. `name` is a path such as `layers.3.attention`."""

    name: str
    op: Op
    inputs: dict[str, Value | None]
    attrs: dict[str, Any]
    outputs: dict[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        args = [f"{k}=%{v.name}" for k, v in self.inputs.items() if v is not None]
        args += [f"{k}={v!r}" for k, v in self.attrs.items() if v is not None]
        return f"{', '.join(map(str, self.outputs.values()))} = {self.op.name}({', '.join(args)})"


class Graph:
    """Holds nodes in order. Dimensions may be names (`T` tokens, `S` sequences) until `bind`."""

    def __init__(self, name: str = "graph") -> None:
        self.name = name
        self.nodes: list[Node] = []
        self.values: dict[str, Value] = {}
        self.outputs: dict[str, Value] = {}
        self._names: set[str] = set()  # of values and nodes, which share one space
        #: what was found out about the nodes that no dimension decides, by who looked for it; a
        #: graph shares it with those that `bind` made of it, until one of them changes
        self.structure: dict[object, Any] = {}

    # declaring

    def input(self, name: str, dtype_spec: TensorSpec) -> Value:
        """Declare a value that the caller sets before each run."""
        return self._declare(name, dtype_spec, "input")

    def weight(self, name: str, dtype_spec: TensorSpec) -> Value:
        """Declare a constant by its checkpoint name; asking again returns the same value."""
        return self.values.get(name) or self._declare(name, dtype_spec, "weight")

    def state(self, name: str, dtype_spec: TensorSpec) -> Value:
        """Declare a value that lives on between runs, such as a KV cache."""
        return self._declare(name, dtype_spec, "state")

    def view(self, value: Value, *shape: Dim) -> Value:
        """Return the same elements in another shape, at no cost. Raises ShapeError where sizes
        differ."""
        if _elements(value.spec.shape) != _elements(shape):
            raise ShapeError(f"cannot view {value} as [{', '.join(map(str, shape))}]: "
                             "expected the same number of elements")
        spec = TensorSpec(shape, value.spec.dtype)
        return self._add_value(Value(self._unique(f"{value.name}.view"), spec, value.kind,
                                     alias_of=value))

    def add(self, op_name: str, *inputs: Value | None, name: str = "", **attrs: Any) -> Any:  # noqa: ANN401 - one Value, or a tuple as the op has results
        """Apply an op. Returns its result, or a tuple: in-place inputs first, then new outputs.

        Raises OpError (naming node and op) for inputs outside the op's definition.
        """
        op = find_op(op_name)
        node = Node(self._unique(name or op_name), op, op.named(inputs), op.complete(attrs))
        specs = {k: v.spec if v is not None else None for k, v in node.inputs.items()}
        try:
            outputs = op.infer(specs, node.attrs)
        except OpError as error:
            raise type(error)(f"node {node.name}: {error}") from None
        for key in op.sig.mutated:
            target = node.inputs[key]
            if target is not None:
                node.outputs[key] = self._add_value(Value(
                    self._unique(f"{target.root.name}@{node.name}"), target.spec, target.kind, node,
                    target))
        for key, out in outputs.items():
            label = node.name if len(outputs) == 1 else f"{node.name}.{key}"
            node.outputs[key] = self._add_value(Value(label, out, "node", node))
        self.nodes.append(node)
        self._names.add(node.name)
        self.structure = {}
        results = tuple(node.outputs.get(k) for k in op.result_names)
        return results[0] if len(results) == 1 else results

    def output(self, name: str, value: Value) -> None:
        """Name a value that the caller reads after a run."""
        self.outputs[name] = value
        self.structure = {}

    def prune(self) -> None:
        """Remove nodes whose results no node reads and that update only each other."""
        read = {value.root for value in self.outputs.values()}
        dead: set[Node] = set()
        for node in reversed(self.nodes):
            if any(v.root.kind != "node" or v.root in read for v in node.outputs.values()):
                read.update(v.root for v in node.inputs.values() if v is not None)
            else:
                dead.add(node)
        self.nodes = [node for node in self.nodes if node not in dead]
        self.values = {name: v for name, v in self.values.items()
                       if v.producer not in dead and v.root.producer not in dead}
        self.structure = {}

    # using

    def roots(self, kind: str) -> list[Value]:
        """Return the declared inputs, weights or states, in order."""
        return [v for v in self.values.values() if v.kind == kind and v.alias_of is None]

    def bind(self, dims: Mapping[str, int]) -> Graph:
        """Return the same graph with numbers for the named dimensions; lowering checks them."""
        bound = Graph(self.name)
        new: dict[Value | None, Value | None] = {None: None}
        specs: dict[TensorSpec, TensorSpec] = {}  # few differ, as layers repeat
        nodes = {n: Node(n.name, n.op, {}, n.attrs) for n in self.nodes}
        for value in self.values.values():
            if (spec := specs.get(value.spec)) is None:
                shape = tuple(resolve(d, dims) for d in value.spec.shape)
                spec = specs[value.spec] = TensorSpec(shape, value.spec.dtype)
            new[value] = bound.values[value.name] = Value(
                value.name, spec, value.kind,
                None if value.producer is None else nodes[value.producer], new[value.alias_of])
        for old, node in nodes.items():
            node.inputs = {k: new[v] for k, v in old.inputs.items()}
            node.outputs = {k: bound.values[v.name] for k, v in old.outputs.items()}
        bound.nodes, bound._names = list(nodes.values()), set(self._names)
        bound.outputs = {k: bound.values[v.name] for k, v in self.outputs.items()}
        bound.structure = self.structure
        return bound

    def consumers(self) -> dict[Value, list[Node]]:
        """Return the nodes that read each value."""
        found: dict[Value, list[Node]] = {v: [] for v in self.values.values()}
        for node in self.nodes:
            for value in dict.fromkeys(v for v in node.inputs.values() if v is not None):
                found[value].append(node)
        return found

    def __str__(self) -> str:
        head = [f"graph {self.name}("]
        head += [f"  {v}  # {kind}" for kind in ("input", "state", "weight")
                 for v in self.roots(kind)]
        lines: list[str] = []
        for value in self.values.values():
            if value.is_view and value.alias_of is not None:
                lines.append(f"  {value} = view(%{value.alias_of.name})")
            elif (value.producer is not None
                  and value is next(iter(value.producer.outputs.values()))):
                lines.append(f"  {value.producer}")
        tail = ", ".join(f"{k}=%{v.name}" for k, v in self.outputs.items())
        return "\n".join([*head, "):", *lines, f"  return {tail}"])

    def _declare(self, name: str, dtype_spec: TensorSpec, kind: str) -> Value:
        if name in self.values:
            raise OpError(f"graph {self.name}: value {name!r} is declared twice")
        return self._add_value(Value(name, dtype_spec, kind))

    def _add_value(self, value: Value) -> Value:
        self.values[value.name] = value
        self._names.add(value.name)
        self.structure = {}
        return value

    def _unique(self, name: str) -> str:
        candidate, n = name, 2
        while candidate in self._names:
            candidate, n = f"{name}.{n}", n + 1
        return candidate


def _elements(shape: Sequence[Dim]) -> tuple[int, list[str]]:
    number, names = 1, []
    for factor in (f for dim in shape for f in str(dim).split("*")):
        if factor.isdigit():
            number *= int(factor)
        else:
            names.append(factor)
    return number, sorted(names)
