"""python -m models.doctor: shows what is installed, what works, and how to fix the rest."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import worded
from core.installed.registry import Registry
from models.cli import report
from models.cli.arguments import (
    BACKEND_OPTIONS,
    PLUGIN_OPTIONS,
    add_load_options,
    whole_registry,
)
from models.cli.command import command
from models.cli.console import make_table, open_console, shortened
from models.cli.probe import Prober
from models.engine.memory import megabytes

#: module -> what needs it
MODULES = {"numpy": "core", "ml_dtypes": "core", "pluggy": "core", "rich": "command line",
           "sentencepiece": "tokenizers", "tokenizers": "tokenizers", "jinja2": "chat templates",
           "numba": "cpu_numba", "cupy": "cuda_cupy", "pycuda": "cuda_pycuda",
           "gguf": "writing GGUF, IQ types", "torch": "extra parity",
           "transformers": "extra parity", "matplotlib": "extra plot"}
#: module -> the distributions that bring it, where they have other names
DISTRIBUTIONS = {"cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy")}


#: states of a plugin for which the exit code is 1
BAD = ("broken", "left out")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("python -m models.doctor", description=__doc__)
    add_load_options(p, only=(*BACKEND_OPTIONS, *PLUGIN_OPTIONS))
    p.add_argument("--json", action="store_true", help="print one JSON object")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 some backend works, 1 none does or a plugin is broken."""
    args = parser().parse_args(argv)
    prober = Prober()
    found = examine(whole_registry(args, prober), prober)
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        show(found)
    works = any(b["available"] for b in found["backends"])
    return 1 if not works or any(p["state"] in BAD for p in found["plugins"]) else 0


def examine(registry: Registry, prober: Prober) -> dict[str, Any]:
    """Examine everything on the page. Opens every backend."""
    backends = [_backend(registry, name) for name in sorted(registry.specs)]
    return {"python": platform.python_version(), "executable": sys.executable,
            "platform": platform.platform(), "cores": os.cpu_count(), "packages": packages(),
            "backends": backends, "plugins": _plugins(registry, prober)}


def packages() -> list[dict[str, str | None]]:
    """Return versions as installed; nothing is imported. A module without metadata is there in
    version "unknown", one that cannot be imported has None."""
    return [{"module": module, "version": version, "distribution": name, "needed_by": why}
            for module, why in MODULES.items() for name, version in [_installed(module)]]


def _installed(module: str) -> tuple[str, str | None]:
    # packages_distributions() of Python 3.10 needs a top_level.txt, which few packages have now
    names = DISTRIBUTIONS.get(module, (module,))
    if importlib.util.find_spec(module) is None:
        return names[-1], None
    for name in names:
        try:
            return name, importlib.metadata.version(name) or "unknown"
        except Exception:  # missing, or damaged: what Python raises depends on its version
            continue
    return names[-1], "unknown"


def _plugins(registry: Registry, prober: Prober) -> list[dict[str, Any]]:
    """List every plugin: loaded, broken, not loaded, and single things that are left out."""
    registry.load_tables()
    plugins = registry.plugins
    rows: list[dict[str, Any]] = [
        {"name": name, "distribution": source, "state": "loaded", "reason": "",
         "path": str(getattr(plugins.manager.get_plugin(name), "__file__", "?"))}
        for name, source in plugins.distributions.items()]
    rows += [{"name": p.name, "distribution": p.distribution, "state": state, "reason": p.reason,
              "path": ""}
             for state, left in (("broken", plugins.broken), ("left out", plugins.dropped),
                                 ("not loaded", plugins.lying)) for p in left]
    for row in rows:
        probe = prober.found.get(row["name"])
        row["import_s"] = probe.seconds if probe else plugins.seconds.get(row["name"])
        row["output"] = probe.output if probe else ""
    return rows


def _backend(registry: Registry, name: str) -> dict[str, Any]:
    try:
        return _examined(registry, name)
    except Exception as error:  # a backend that opens and fails later must not take the page down
        spec, reason = registry.specs[name], worded(error)
        return {"name": name, "description": spec.description, "device": spec.device,
                "available": False, "details": None, "free": None, "kernels": 0,
                "reason": f"backend {name}: {reason}", "fix": None, "guests": [], "caches": []}


def _examined(registry: Registry, name: str) -> dict[str, Any]:
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
    console = open_console()
    console.print(f"Python {found['python']} ({found['executable']}), {found['platform']}, "
                  f"{found['cores']} cores", highlight=False, markup=False, soft_wrap=True)
    console.print(", ".join(f"{p['distribution']} {p['version']}" for p in found["packages"]
                            if p["version"]), highlight=False, markup=False, soft_wrap=True)
    missing = [f"{p['module']} ({p['needed_by']})" for p in found["packages"] if not p["version"]]
    if missing:
        console.print(f"not installed: {', '.join(missing)}", highlight=False, markup=False,
                      soft_wrap=True)
    table = make_table("backend", "what it is", "device", "state", "kernels", "memory free",
                       numbers=("kernels", "memory free"))
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
    table = make_table("plugin", "distribution", "state", "import", "path")
    for p in found["plugins"]:
        took = "" if p["import_s"] is None else f"{p['import_s']:.2f} s"
        table.add_row(p["name"], p["distribution"], p["state"], took, p["path"] or p["reason"],
                      style=None if p["state"] == "loaded" else "red")
    console.print(table)
    for name, output in {p["name"]: p["output"] for p in found["plugins"] if p["output"]}.items():
        console.print(shortened(f"plugin {name} printed: {output}"), highlight=False, markup=False,
                      soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
