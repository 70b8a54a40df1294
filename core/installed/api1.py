"""Import paths of plugin API 1, served from where their names live now.

Plugins of version 1 import from modules such as `core.backend`. These modules do not exist any more
as files; `serve` puts one of each name into `sys.modules`, holding the same objects.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

#: module of API 1 -> the modules that hold its names today
MOVED = {
    "allocator": ("tensor.allocator",),
    "backend": ("plugins.backend", "plugins.kernel"),
    "compare": ("ir.tolerance",),
    "compiled": ("devices.code_cache",),
    "dtype": ("tensor.dtype",),
    "fused": ("ir.fusion",),
    "graph": ("ir.graph",),
    "hookspecs": ("plugins.hookspecs",),
    "host": ("tensor.host",),
    "op": ("ir.op",),
    "samples": ("ir.examples",),
    "signature": ("ir.signature",),
    "slabs": ("tensor.suballocator",),
}
#: names that have changed, by the module of API 1
RENAMED = {
    "samples": {"Draw": "ExampleInputs", "ErrorSample": "ErrorExample", "Sample": "Example"},
    "slabs": {"Slabs": "Suballocator"},
}
#: ops that have another name today
OPS = {"three_linear": "qkv_linear", "three_quantized": "qkv_quantized"}


class _Moved(ModuleType):
    """Stands where a module was. It takes all names from where they live when one is asked for."""

    def __getattr__(self, name: str) -> object:
        old = self.__name__.partition(".")[2]
        for home in MOVED[old]:
            names = vars(import_module(f"core.{home}"))
            self.__dict__.update({k: v for k, v in names.items() if not k.startswith("__")})
        for was, now in RENAMED.get(old, {}).items():
            self.__dict__[was] = self.__dict__[now]
        if name not in self.__dict__:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return self.__dict__[name]


def serve() -> None:
    """Make the modules of API 1 importable."""
    for old in MOVED:
        module = _Moved(f"core.{old}", f"core.{old} of plugin API 1")
        sys.modules[module.__name__] = module
