"""Reads policies from text: `BACKEND[,BACKEND…][+[NODES:]OP=BACKEND[:KERNEL]…][+no-fusion]`.

The text is also the policy's name. `reference` names the float64 reference, which has no kernels.
"""

from __future__ import annotations

from core.errors import OptionError
from core.installed.registry import REFERENCE, Registry, split_backends
from core.plan.policy import KernelPolicy, Override

__all__ = ["REFERENCE", "parse_policy"]


def parse_policy(text: str, registry: Registry) -> KernelPolicy | None:
    """Return the policy that a text names, None for `reference`.

    Raises BackendError for an unknown backend, OptionError for anything else.
    """
    first, *more = text.split("+")
    if text == REFERENCE:
        return None
    if first == REFERENCE:
        raise OptionError(f"{text!r}: `reference` is the definition and takes no options")
    names = split_backends(first)
    for name in names:
        registry.backend(name)
    overrides = tuple(Override.parse(part) for part in more if part != "no-fusion")
    for override in overrides:
        override.check(registry)
    return KernelPolicy(registry, names, overrides, fusion="no-fusion" not in more)
