"""Writes a graph as Graphviz dot: `dot -Tsvg` draws what `to_dot` returns."""

from core.ir.graph import Graph, Value


def to_dot(graph: Graph, *, weights: bool = False) -> str:
    """Draw nodes as boxes, inputs and states as ellipses; edges show dtype and shape."""
    lines = [f'digraph "{graph.name}" {{',
             '  rankdir=TB; node [fontname="Helvetica", fontsize=10];']
    kinds = ["input", "state", *(["weight"] if weights else [])]
    shown = dict.fromkeys(v for kind in kinds for v in graph.roots(kind))
    for value in shown:
        style = {"input": "lightblue", "state": "khaki", "weight": "gray90"}[value.kind]
        lines.append(f'  "{value.name}" [shape=ellipse, style=filled, fillcolor={style}];')
    for node in graph.nodes:
        lines.append(f'  "{node.name}" [shape=box, label="{node.op.name}\\n{node.name}"];')
        for arg in node.inputs.values():
            if arg is not None and (arg.root in shown or arg.kind != "weight"):
                lines.append(f'  "{_source(arg)}" -> "{node.name}" [label="{arg.spec}", '
                             'fontsize=8];')
    for name, value in graph.outputs.items():
        lines.append(f'  "out:{name}" [shape=ellipse, style=filled, fillcolor=palegreen];')
        lines.append(f'  "{_source(value)}" -> "out:{name}";')
    return "\n".join([*lines, "}"])


def _source(value: Value | None) -> str:
    while value is not None and value.is_view:
        value = value.alias_of
    if value is None:
        return ""
    return value.producer.name if value.producer is not None else value.name
