"""Checks what a plugin registers. Each function raises PluginError, which breaks the plugin."""

from __future__ import annotations

from typing import Any

from core.errors import PluginError
from core.ir.op import Op
from core.plugins.backend import BackendSpec


def check_op(plugin: str, op: Op) -> None:
    """Check that an op's namespace is its plugin's name."""
    namespace, dot, _ = op.name.rpartition(".")
    if dot and namespace != plugin:
        raise PluginError(f"op {op.name!r} is registered by the plugin {plugin!r}; a namespace is "
                          f"the plugin's own name, as in '{plugin}.{op.name.rpartition('.')[2]}'")


def check_backend(plugin: str, spec: BackendSpec) -> None:
    """Check that a backend has its plugin's name."""
    if spec.name != plugin:
        raise PluginError(f"backend {spec.name!r} is registered by the plugin {plugin!r}; a "
                          "backend has the name of its entry point")


def check_entry(plugin: str, *things: Any) -> None:  # noqa: ANN401 - what the hook offers
    """Check the shape of what a hook of `Registry.table` registers."""
    name = things[0] if len(things) == 2 else getattr(things[0], "key", None) if things else None
    if not isinstance(name, str) or not 1 <= len(things) <= 2:
        raise PluginError(f"register{things!r}: expected a name and a thing, or one thing with a "
                          "`key`")
