"""Makes a graph from a part of another, so that other kernels can compute it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from core.ir.graph import Graph, Node, Value


def extract(graph: Graph, nodes: Collection[Node], outputs: Iterable[Value]) -> Graph:
    """Return the named nodes as a graph; its inputs and weights are what they read, under the same
    names, its outputs the named values."""
    part = Graph(graph.name)
    new: dict[Value, Value] = {}
    chosen = set(nodes)

    def bring(value: Value) -> Value:
        if value not in new:
            if value.alias_of is not None and value.is_view:
                new[value] = part.view(bring(value.alias_of), *value.spec.shape)
            elif value.kind == "weight":
                new[value] = part.weight(value.name, value.spec)
            elif value.alias_of is not None:  # updated in place by a node outside
                new[value] = bring(value.root)
            else:
                new[value] = part.input(value.name, value.spec)
        return new[value]

    for node in graph.nodes:
        if node in chosen:
            inputs = [None if v is None else bring(v) for v in node.inputs.values()]
            part.add(node.op.name, *inputs, name=node.name, **node.attrs)
            made = part.nodes[-1].outputs
            new.update({value: made[key] for key, value in node.outputs.items()})
    for value in outputs:
        part.output(value.name, new[value])
    return part


def visible_values(graph: Graph, nodes: Collection[Node]) -> list[Value]:
    """Return the nodes' values that others see: in-place updates count as seen."""
    chosen, consumers = set(nodes), graph.consumers()
    returned = {v.root for v in graph.outputs.values()}
    families: dict[Value, list[Value]] = {}
    for value in graph.values.values():
        families.setdefault(value.root, []).append(value)
    return [v for n in graph.nodes if n in chosen for v in n.outputs.values()
            if v.alias_of is not None or v.root in returned
            or any(c not in chosen for w in families[v.root] for c in consumers[w])]
