"""kernelyard.lock: lists the kernels that a conformance run has tested, down to their sources.

A lock is written by the suite, so that each verdict in it comes from a run, and required with
`--lock`: then only these kernels, from unchanged packages, may be chosen.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import LockError
from core.files import write_whole
from core.installed.registry import Registry
from core.plugins.kernel import Call, Kernel
from core.reading import MIB, read_json, shown

if TYPE_CHECKING:
    from core.conformance.report import Report

FORMAT = 1
PASSED = "passed"


@dataclass(frozen=True)
class Lock:
    """Holds a lock file's contents: by package the distribution and sources, by op and kernel the
    verdict. As a rule of a policy it admits the kernels that passed."""

    path: Path
    packages: Mapping[str, Mapping[str, Any]]
    kernels: Mapping[str, Mapping[str, Mapping[str, Any]]]

    @classmethod
    def read(cls, path: Path) -> Lock:
        """Raises LockError for a file that is missing, damaged or of another format."""
        try:
            stored = read_json(path, 64 * MIB)
            if stored["format"] != FORMAT:
                raise LockError(f"{path} has lock format {shown(stored['format'])}, expected "
                                f"{FORMAT}; write it again with this version")
            kernels = {op: {k: {"verdict": v["verdict"]} for k, v in found.items()}
                       for op, found in stored["kernels"].items()}
            packages = {name: {"distribution": str(p["distribution"]),
                               "sources": {**p["sources"]}}
                        for name, p in stored["packages"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise LockError(f"{path} cannot be read as a lock file ({type(error).__name__}: "
                            f"{error}); write one with: {_command(('NAME',), path)}") from None
        return cls(path, packages, kernels)

    def check(self, registry: Registry, backends: Sequence[str]) -> None:
        """Raise LockError unless these backends' kernels are exactly the locked ones, listing what
        was added, removed or changed, and how to write the lock anew."""
        found = [k for b in backends for k in registry.kernels(b)]
        now = {(k.op, k.id) for k in found}
        locked = {(op, k) for op, ks in self.kernels.items() for k in ks
                  if k.partition(":")[0] in backends}
        changes = [f"kernel {k} for {op} is new" for op, k in sorted(now - locked)]
        changes += [f"kernel {k} for {op} is gone" for op, k in sorted(locked - now)]
        for name, package in _packages(registry, found).items():
            changes += _changes(name, self.packages.get(name), package)
        if changes:
            missing = [b for b in backends if not any(k.startswith(f"{b}:") for _, k in locked)]
            if missing:
                changes = [f"it holds no kernel of {', '.join(missing)}"]
            raise LockError("\n".join([
                f"{self.path} does not match what is installed:", *(f"  {c}" for c in changes),
                f"  if that is as intended, test and lock again: {_command(backends, self.path)}"]))

    def __call__(self, kernel: Kernel, call: Call) -> str | None:
        """Return None if the kernel passed when the lock was written, else the reason for refusing
        it."""
        entry = self.kernels.get(kernel.op, {}).get(kernel.id)
        if entry is None:
            return f"is not in {self.path}"
        verdict = entry["verdict"]
        return None if verdict == PASSED else f"{self.path} says of it: {verdict}"


def write_lock(path: Path, report: Report, registry: Registry) -> None:
    """Lock every kernel of the report's backends, each with the verdict of the run."""
    found = [k for b in report.backends for k in registry.kernels(b)]
    kernels: dict[str, dict[str, Any]] = {}
    for kernel in sorted(found, key=lambda k: (k.op, k.id)):
        counts = report.kernels.get(kernel.backend, {}).get(kernel.op, {}).get(kernel.name)
        entry: dict[str, Any] = {"verdict": "no example was run"}
        if counts is not None:
            entry = {"verdict": f"failed {counts.failed}" if counts.failed else
                     f"{counts.known} known failures" if counts.known else PASSED,
                     "samples": counts.passed, "budget_used": counts.budget_used}
        kernels.setdefault(kernel.op, {})[kernel.id] = entry
    lock = {"format": FORMAT, "devices": {b: report.devices[b] for b in report.backends},
            "packages": _packages(registry, found), "kernels": kernels}
    write_whole(path, json.dumps(lock, indent=1, allow_nan=False) + "\n")


def _packages(registry: Registry, kernels: Sequence[Kernel]) -> dict[str, dict[str, Any]]:
    """Return the distribution and the SHA-256 of each file of these kernels' import packages."""
    packages: dict[str, dict[str, Any]] = {}
    for kernel in kernels:
        name = kernel.bind.__module__.partition(".")[0]
        if name not in packages:
            packages[name] = {"distribution": registry.sources[kernel], "sources": _hashes(name)}
    return dict(sorted(packages.items()))


def _hashes(package: str) -> dict[str, str]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise LockError(f"the sources of {package} cannot be found, so they cannot be locked")
    origin = Path(spec.origin)
    if spec.submodule_search_locations is None:
        return {origin.name: _hash(origin)}
    return {p.relative_to(origin.parent).as_posix(): _hash(p)
            for p in sorted(origin.parent.rglob("*"))
            if p.is_file() and "__pycache__" not in p.parts}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _changes(name: str, locked: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    if locked is None:
        return [f"package {name} is not in it"]
    lines = []
    if locked["distribution"] != now["distribution"]:
        lines.append(f"{name} is {now['distribution']}, locked was {locked['distribution']}")
    old, new = locked["sources"], now["sources"]
    for file in sorted({*old, *new}):
        if old.get(file) != new.get(file):
            what = "is new" if file not in old else "is gone" if file not in new else "has changed"
            lines.append(f"{name}/{file} {what}")
    return lines


def _command(backends: Sequence[str], path: Path) -> str:
    return f"kernelyard conform --backend {','.join(backends)} --write-lock {path}"
