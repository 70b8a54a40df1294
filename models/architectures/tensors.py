"""Describe the tensors of a family: each with its shape, and how the file's layout becomes it."""

from __future__ import annotations

from dataclasses import dataclass, replace

EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"


@dataclass(frozen=True)
class Rows:
    """Takes rows `start` to `stop` of a tensor of the file, such as q of a joined q, k and v."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Stack:
    """Join tensors of the file along a new first axis, such as the experts of a layer."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class WeightSpec:
    """Describes one tensor as the graph takes it.

    shape         matrices are [rows, columns], as `linear` takes them
    rotary_heads  of q and k (and their biases): the heads whose rows rope pairs; 0: rows keep order
    split         what tensor parallelism divides: "rows", "columns", or None for nothing
    source        what the file holds it as: None for this very name, another name, Rows or Stack
    """

    shape: tuple[int, ...]
    rotary_heads: int = 0
    split: str | None = None
    source: str | Rows | Stack | None = None

    def within(self, prefix: str) -> WeightSpec:
        """Return the spec with the names of its source below `prefix`, such as a layer's."""
        s = self.source
        if s is None:
            return self
        if isinstance(s, Stack):
            return replace(self, source=Stack(tuple(prefix + name for name in s.names)))
        return replace(self, source=prefix + s if isinstance(s, str) else
                       Rows(prefix + s.name, s.start, s.stop))

    @property
    def stored_names(self) -> tuple[str, ...]:
        """Name the file's tensors that this one is made of; empty where it has the same name."""
        if self.source is None:
            return ()
        if isinstance(self.source, Stack):
            return self.source.names
        return (self.source if isinstance(self.source, str) else self.source.name,)
