"""DeterminismRule: requires that a kernel declares and shows equal bits, for --deterministic."""

from __future__ import annotations

from core.installed.registry import Registry
from core.plugins.kernel import Call, Kernel

RUNS = 4
LARGEST = 1 << 21  # elements of a example's inputs: enough for every thread, quick to run


class DeterminismRule:
    """Refuses kernels that do not declare `deterministic`, and those whose bits differ between runs
    on their op's examples. Each kernel is tried once, when first asked for."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._tried: dict[Kernel, str | None] = {}

    def __call__(self, kernel: Kernel, call: Call) -> str | None:
        """Return None if the kernel may be chosen, else the reason."""
        if not kernel.deterministic:
            return "--deterministic: declares that equal inputs may give other bits"
        if kernel not in self._tried:
            self._tried[kernel] = self._try(kernel)
        return self._tried[kernel]

    def _try(self, kernel: Kernel) -> str | None:
        # only now: the suite is needed for this option alone, and itself makes plans
        from core.conformance.cases import cases_of
        from core.conformance.runner import repeats
        shown = 0
        for case in cases_of(kernel):
            size = sum(a.size for a in case.arrays.values() if a is not None)
            if size > LARGEST or kernel.refuses(case.call) is not None:
                continue
            shown += 1
            if not repeats(case, kernel, self.registry, RUNS):
                return (f"--deterministic: declares equal bits, but {RUNS} runs of {case.id} "
                        "differ")
        return None if shown else "--deterministic: takes no example that could show equal bits"
