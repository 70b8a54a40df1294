"""Keeps kernels from being accused of what an earlier one did to the device."""

from __future__ import annotations

from core.installed.registry import Registry


def note_failure(registry: Registry, said: str) -> bool:
    """Ask the devices of the opened backends whether they still work after a kernel failed.

    A GPU that one kernel broke fails every later call of the process. Its backend is `lost` then,
    and says `said`, which names that kernel. Returns True where there is such a backend.
    """
    for name, backend in registry.opened.items():
        try:
            if not backend.lost:
                backend.allocator.synchronize()
        except Exception as error:  # of the device's library
            backend.lost = (
                f"backend {name} cannot be used in this process any more: its device failed with "
                f"{type(error).__name__}: {error}. It began with: {' '.join(said.split())}; fix: "
                "begin a new process, as the conformance suite does with --isolate")
    return any(b.lost for b in registry.opened.values())
