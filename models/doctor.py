"""python -m models.doctor: shows what is installed, what works, and how to fix the rest."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from core.plugins.registry import Registry
from models.cli import report
from models.cli.arguments import BACKEND_OPTIONS, add_load_options, whole_registry
from models.cli.command import command
from models.engine.memory import megabytes

#: module -> what needs it
MODULES = {"numpy": "core", "ml_dtypes": "core", "pluggy": "core", "rich": "command line",
           "sentencepiece": "tokenizers", "tokenizers": "tokenizers", "jinja2": "chat templates",
           "numba": "cpu_numba", "cupy": "cuda_cupy", "pycuda": "cuda_pycuda",
           "gguf": "writing GGUF, IQ types", "torch": "extra parity",
           "transformers": "extra parity", "matplotlib": "extra plot"}


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("python -m models.doctor", description=__doc__)
    add_load_options(p, only=BACKEND_OPTIONS)
    p.add_argument("--json", action="store_true", help="print one JSON object")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 some backend works, 1 none does or a plugin is broken."""
    args = parser().parse_args(argv)
    found = examine(whole_registry(args))
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        show(found)
    works = any(b["available"] for b in found["backends"])
    return 0 if works and all(p["state"] == "loaded" for p in found["plugins"]) else 1


def examine(registry: Registry) -> dict[str, Any]:
    """Examine everything on the page. Opens every backend."""
    backends = [_backend(registry, name) for name in sorted(registry.specs)]
    return {"python": platform.python_version(), "executable": sys.executable,
            "platform": platform.platform(), "cores": os.cpu_count(), "packages": _packages(),
            "backends": backends, "plugins": _plugins(registry)}


def _packages() -> list[dict[str, str | None]]:
    """Versions as installed; nothing is imported."""
    owners = importlib.metadata.packages_distributions()
    return [{"module": module, "version": importlib.metadata.version(owners[module][0])
             if module in owners else None, "distribution": owners.get(module, [module])[0],
             "needed_by": why} for module, why in MODULES.items()]


def _plugins(registry: Registry) -> list[dict[str, str]]:
    """List every plugin: loaded, broken, and single things of a loaded one that are left out."""
    registry.load_tables()
    plugins = registry.plugins
    loaded = [{"name": name, "distribution": source, "state": "loaded", "reason": "",
               "path": str(getattr(plugins.manager.get_plugin(name), "__file__", "?"))}
              for name, source in plugins.distributions.items()]
    return loaded + [{"name": b.name, "distribution": b.distribution, "state": "broken",
                      "reason": b.reason, "path": ""} for b in plugins.broken] + [
        {"name": d.name, "distribution": d.distribution, "state": "left out", "reason": d.reason,
         "path": ""} for d in plugins.dropped]


def _backend(registry: Registry, name: str) -> dict[str, Any]:
    spec, reason = registry.specs[name], registry.unavailable(name)
    kind = registry.backend_class(name)
    found: dict[str, Any] = {
        "name": name, "description": spec.description, "device": spec.device,
        "available": reason is None, "details": None, "free": None, "kernels": 0,
        "reason": None, "fix": None, "guests": [],
        "caches": [] if kind is None else [
            {"path": str(folder), "bytes": _size(folder)} for folder in kind.cache_folders()]}
    if reason is not None:
        found["reason"], _, fix = reason.partition("; fix: ")
        return {**found, "fix": fix or None}
    backend = registry.backend(name)
    return {**found, "device": backend.allocator.device, "free": backend.allocator.available(),
            "details": report.described(registry, name), "kernels": len(registry.kernels(name)),
            "guests": report.guests(registry, name)}


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def show(found: dict[str, Any]) -> None:
    """Print the page."""
    console = report.open_console()
    console.print(f"Python {found['python']} ({found['executable']}), {found['platform']}, "
                  f"{found['cores']} cores", highlight=False, markup=False, soft_wrap=True)
    console.print(", ".join(f"{p['distribution']} {p['version']}" for p in found["packages"]
                            if p["version"]), highlight=False, markup=False, soft_wrap=True)
    missing = [f"{p['module']} ({p['needed_by']})" for p in found["packages"] if not p["version"]]
    if missing:
        console.print(f"not installed: {', '.join(missing)}", highlight=False, markup=False,
                      soft_wrap=True)
    table = Table("backend", "what it is", "device", "state", "kernels", "memory free")
    for b in found["backends"]:
        free = "unknown" if b["free"] is None else megabytes(b["free"])
        table.add_row(b["name"], b["description"], b["device"],
                      b["details"] if b["available"] else "unavailable", str(b["kernels"] or ""),
                      free, style=None if b["available"] else "red")
    console.print(table)
    for b in found["backends"]:
        for guest in b["guests"]:
            console.print(f"{b['name']} has a guest kernel, {guest}", highlight=False, markup=False,
                          soft_wrap=True)
        if b["reason"]:
            console.print(f"{b['reason']}\n  fix: {b['fix'] or 'see the reason'}", style="red",
                          highlight=False, markup=False, soft_wrap=True)
        for cache in b["caches"]:
            console.print(f"{b['name']} keeps compiled kernels in {cache['path']}: "
                          f"{megabytes(cache['bytes'])}", highlight=False, markup=False,
                          soft_wrap=True)
    table = Table("plugin", "distribution", "state", "path")
    for p in found["plugins"]:
        table.add_row(p["name"], p["distribution"], p["state"], p["path"] or p["reason"],
                      style=None if p["state"] == "loaded" else "red")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
