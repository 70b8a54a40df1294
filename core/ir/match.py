"""Finds a fused op's pattern in a graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import combinations
from typing import Any

from core.errors import DtypeError, ShapeError
from core.ir.fusion import FusedOp, Pattern, PatternNode, PatternValue
from core.ir.graph import Graph, Node, Value
from core.ir.op import AttrVar
from core.ir.signature import Env, resolve


@dataclass
class Match:
    """Describes where a fused op applies: the nodes it covers, in order; its inputs, attributes and
    outputs there."""

    nodes: list[Node] = field(default_factory=list)
    inputs: dict[str, Value | None] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Value] = field(default_factory=dict)


@dataclass
class _State:
    nodes: dict[PatternNode, Node]
    args: dict[str, Value]
    attrs: dict[str, Any]
    views: list[tuple[PatternValue, Value]]

    def copy(self) -> _State:
        return _State(dict(self.nodes), dict(self.args), dict(self.attrs), list(self.views))


@dataclass
class _Place:
    """Describes a match in any graph of one structure: nodes by number, values by name."""

    nodes: list[int]
    inputs: dict[str, str | None]
    attrs: dict[str, Any]
    outputs: dict[str, str]
    views: list[tuple[PatternValue, str]]


class Search:
    """Finds matches in one graph. Which nodes make a pattern is looked for once for all graphs that
    are bound from one; whether the op takes their dtypes and shapes, in each."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._envs: dict[tuple[object, ...], Env | None] = {}  # of calls, None where refused

    def matches(self, op: FusedOp) -> Iterator[Match]:
        """Find every place where `op`'s composition occurs and may be replaced by one kernel."""
        key, nodes, values = (Search, op), self.graph.nodes, self.graph.values
        known = self.graph.structure
        if key not in known:
            known[key] = list(_find_places(op, self._index))
        for alternatives in known[key]:
            for place in alternatives:
                match = Match([nodes[i] for i in place.nodes],
                              {k: v and values[v] for k, v in place.inputs.items()},
                              place.attrs,
                              {k: values[v] for k, v in place.outputs.items()})
                if self._takes(op, match, place):
                    yield match
                    break

    @cached_property
    def _index(self) -> Index:
        return Index(self.graph)

    def _takes(self, op: FusedOp, match: Match, place: _Place) -> bool:
        """Say whether the op takes these dtypes, which its nodes may mix, and its views these
        shapes."""
        specs = {k: None if v is None else v.spec for k, v in match.inputs.items()}
        key = op, *map(id, specs.values()), *match.attrs.values()  # a graph's values share specs
        if key not in self._envs:
            try:
                self._envs[key] = op.bind(specs, match.attrs)
            except (DtypeError, ShapeError):
                self._envs[key] = None
        env = self._envs[key]
        return env is not None and all(
            tuple(resolve(d, env.dims) for d in wanted.shape) == self.graph.values[name].spec.shape
            for wanted, name in place.views)


def find_matches(op: FusedOp, graph: Graph) -> Iterator[Match]:
    """Find every match of one op, as `Search` does."""
    return Search(graph).matches(op)


def _find_places(op: FusedOp, index: Index) -> Iterator[list[_Place]]:
    """Find, for each node that may be the last one of a pattern, the places that end there."""
    for pattern, forms in _patterns(op):
        if not set(forms.values()) <= index.forms.keys():
            continue
        anchor = pattern.nodes[-1]
        for node in index.forms[forms[anchor]]:
            found = []
            for state in _extend(forms, anchor, node, _State({}, {}, {}, []), index):
                match = _finish(op, pattern, state)
                if _replaceable(match, index):
                    found.append(_Place(
                        sorted(index.order[n] for n in match.nodes),
                        {k: None if v is None else v.name for k, v in match.inputs.items()},
                        match.attrs,
                        {k: v.name for k, v in match.outputs.items()},
                        [(wanted, v.name) for wanted, v in state.views]))
            yield found


@cache
def _patterns(op: FusedOp) -> list[tuple[Pattern, dict[PatternNode, tuple[object, ...]]]]:
    """Return the op's patterns, one for each choice of optional inputs that are left out, with the
    forms of their nodes, in order."""
    optional = [p.name for p in op.sig.params if p.optional]
    patterns = [op.pattern(frozenset(absent)) for n in range(len(optional) + 1)
                for absent in combinations(optional, n)]
    return [(pattern, {node: _form(node) for node in pattern.nodes}) for pattern in patterns]


def _form(node: Node | PatternNode) -> tuple[object, ...]:
    """Return the op and which inputs are absent: equal for a node and what it may be assigned to.
    """
    return node.op, *(value is None for value in node.inputs.values())


class Index:
    """Keeps the graph's answers that the search needs again and again."""

    def __init__(self, graph: Graph) -> None:
        self.nodes = graph.nodes
        self.forms: dict[tuple[object, ...], list[Node]] = {}
        self.form = {node: _form(node) for node in graph.nodes}
        for node, form in self.form.items():
            self.forms.setdefault(form, []).append(node)
        self.consumers = graph.consumers()
        self.order = {node: i for i, node in enumerate(graph.nodes)}
        self.returned = {v.root for v in graph.outputs.values()}
        self.families: dict[Value, list[Value]] = {}  # values of one memory, by its owner
        #: the nodes that read a value, itself or as a view
        self.readers: dict[Value, list[Node]] = {v: list(c) for v, c in self.consumers.items()}
        for value in graph.values.values():
            self.families.setdefault(value.root, []).append(value)
            seen = value
            while seen.is_view and seen.alias_of is not None:
                seen = seen.alias_of
                self.readers[seen] += self.consumers[value]


def _extend(forms: dict[PatternNode, tuple[object, ...]], wanted: PatternNode, node: Node,
            state: _State, index: Index) -> Iterator[_State]:
    """Assign `node` to `wanted`, then the remaining pattern nodes, with backtracking."""
    state = state.copy()
    if not _assign(wanted, node, state):
        return
    rest = next((p for p in reversed(forms) if p not in state.nodes), None)
    if rest is None:
        yield state
        return
    # the assignment above followed inputs; a node left over reads a bound value as well
    made = [v for n in state.nodes.values() for v in n.outputs.values()]
    for value in [*state.args.values(), *made]:
        for candidate in index.readers[value]:
            if index.form[candidate] == forms[rest] and candidate not in state.nodes.values():
                yield from _extend(forms, rest, candidate, state, index)


def _assign(wanted: PatternNode, node: Node, state: _State) -> bool:
    if wanted in state.nodes:
        return state.nodes[wanted] is node
    if node.op is not wanted.op or node in state.nodes.values():
        return False
    for key, value in wanted.attrs.items():
        if isinstance(value, AttrVar):
            if state.attrs.setdefault(value.name, node.attrs[key]) != node.attrs[key]:
                return False
        elif value != node.attrs[key]:
            return False
    state.nodes[wanted] = node
    return all(_bind(wanted.inputs[k], v, state) for k, v in node.inputs.items())


def _bind(wanted: PatternValue | None, value: Value | None, state: _State) -> bool:
    if wanted is None or value is None:
        return wanted is None and value is None
    if wanted.of is not None:
        state.views.append((wanted, value))
        base = value.alias_of if value.is_view else None
        while wanted.of.node is not None and base is not None and base.is_view:
            base = base.alias_of  # a view of a view of a result
        return base is not None and _bind(wanted.of, base, state)
    if wanted.node is None:
        return state.args.setdefault(wanted.name, value) is value
    return (value.producer is not None and value.producer.outputs.get(wanted.name) is value
            and _assign(wanted.node, value.producer, state))


def _finish(op: FusedOp, pattern: Pattern, state: _State) -> Match:
    outputs = {name: state.nodes[v.node].outputs[v.name] for name, v in pattern.outputs.items()
               if v.node is not None and v.name in state.nodes[v.node].outputs}
    return Match(list(state.nodes.values()),
                 {p.name: state.args.get(p.name) for p in op.sig.params},
                 {k: state.attrs[k] for k in op.attributes}, outputs)


def _replaceable(match: Match, index: Index) -> bool:
    """Return whether one kernel may run at the last node: no other node reads its results sooner,
    or values inside it."""
    order, group, exposed = index.order, set(match.nodes), set(match.outputs.values())
    last = max(order[n] for n in group)
    for node in match.nodes:
        for value in node.outputs.values():
            outside = [c for v in index.families[value.root] for c in index.consumers[v]
                       if c not in group]
            if value not in exposed and (outside or value.root in index.returned):
                return False
            if any(order[node] < order[c] < last for c in outside):
                return False
    # what a covered node reads may not be updated between it and the last one, where it would run
    for node in match.nodes:
        read = {v.root for v in node.inputs.values() if v is not None}
        updated = {v.root for other in index.nodes[order[node] + 1:last] if other not in group
                   for v in other.outputs.values() if v.alias_of is not None}
        if read & updated:
            return False
    return True
