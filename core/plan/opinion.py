"""Opinions: who computes a model, in the words of a command line."""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import OptionError
from core.plan.policy import Override, Selector
from core.plugins.registry import Registry, split_backends

REFERENCE = "reference"


@dataclass(frozen=True)
class Opinion:
    """A preference for kernels under a name; without a selector it is the float64 reference."""

    name: str
    selector: Selector | None
    fusion: bool = True

    @classmethod
    def parse(cls, text: str, registry: Registry) -> Opinion:
        """From `BACKEND[,BACKEND…][+[NODES:]OP=BACKEND[:KERNEL]…][+no-fusion]` or `reference`.

        Raises BackendError for an unknown backend, OptionError for anything else.
        """
        first, *more = text.split("+")
        if text == REFERENCE:
            return cls(text, None)
        if first == REFERENCE:
            raise OptionError(f"{text!r}: `reference` is the definition and takes no options")
        names = split_backends(first)
        for name in names:
            registry.backend(name)
        overrides = [Override.parse(part) for part in more if part != "no-fusion"]
        for override in overrides:
            override.check(registry)
        return cls(text, Selector(registry, names, tuple(overrides)), "no-fusion" not in more)
