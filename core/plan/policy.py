"""KernelPolicy: decides which kernel runs a node. Capability is a predicate with reasons,
preference a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from core.errors import KernelyardError, NoKernelError, OptionError
from core.installed.registry import REFERENCE, Registry, split_backends
from core.ir.op import OPS
from core.plugins.backend import Backend
from core.plugins.kernel import Call, Kernel

#: (kernel id, why it was not taken)
Refusals = list[tuple[str, str]]
#: None where a kernel may be chosen for a call, else the reason
Rule = Callable[[Kernel, Call], str | None]


@dataclass(frozen=True)
class Override:
    """Hold a choice `[node glob:]op=backend[:kernel]`, as `--kernel` takes it."""

    text: str
    nodes: str
    op: str
    backend: str
    kernel: str | None

    @classmethod
    def parse(cls, text: str) -> Override:
        """Raises OptionError for anything else, naming the known ops."""
        left, equals, right = text.partition("=")
        glob, _, op = left.rpartition(":")
        backend, _, kernel = right.partition(":")
        if not equals or not op or not backend:
            raise OptionError(f"kernel override {text!r}: expected OP=BACKEND, OP=BACKEND:KERNEL "
                              "or NODES:OP=BACKEND, such as attention=cpu_numpy or "
                              "'layers.3.*:linear=cpu_numpy'")
        if op not in OPS:
            raise OptionError(f"kernel override {text!r}: unknown op {op!r}; known: "
                              f"{', '.join(sorted(OPS))}")
        return cls(text, glob or "*", op, backend, kernel or None)

    def check(self, registry: Registry) -> None:
        """Raise OptionError unless the backend offers such a kernel."""
        offered = [k.name for k in registry.kernels(self.backend, self.op)]
        if not offered or (self.kernel is not None and self.kernel not in offered):
            what = f"kernel {self.kernel!r}" if self.kernel else "kernel"
            raise OptionError(f"kernel override {self.text!r}: {self.backend} has no {what} for "
                              f"{self.op}; it offers: {', '.join(offered) or 'none'}")

    def matches(self, op: str, node: str) -> bool:
        return op == self.op and fnmatchcase(node, self.nodes)


@dataclass(frozen=True)
class KernelPolicy:
    """Says which kernels a graph may get, in which order.

    backends   in order of preference; the first one owns the model's memory
    overrides  for single ops or nodes; the last match wins
    rules      each must admit a kernel, besides the kernel's own `supports`
    fusion     fused kernels may take several nodes at once
    """

    registry: Registry
    backends: tuple[str, ...]
    overrides: tuple[Override, ...] = ()
    rules: tuple[Rule, ...] = ()
    fusion: bool = True

    @classmethod
    def of(cls, registry: Registry, backends: str | Sequence[str]) -> KernelPolicy:
        """Prefer these backends, as `--backend` names them. Raises BackendError."""
        return cls(registry, split_backends(backends))

    @property
    def primary(self) -> Backend:
        """Return the first backend, opened. Raises BackendError where it cannot run."""
        return self.registry.backend(self.backends[0])

    def override(self, op: str, node: str) -> Override | None:
        return next((o for o in reversed(self.overrides) if o.matches(op, node)),
                    None) if self.overrides else None

    def candidates(self, op: str, node: str) -> list[Kernel]:
        """Return kernels in the order in which they are tried; an override leaves only its own."""
        override = self.override(op, node)
        if override is None:
            return [k for b in self.backends for k in self.registry.kernels(b, op)]
        return [k for k in self.registry.kernels(override.backend, op)
                if override.kernel in (None, k.name)]

    def choose(self, call: Call, node: str, misplaced: Callable[[Kernel], str | None],
               ) -> tuple[Kernel | None, Refusals]:
        """Return the first candidate that takes the call, and why those before it did not.

        `misplaced` says why a kernel's device is the wrong one for the node's state, or None.
        """
        refused: Refusals = []
        for kernel in self.candidates(call.op.name, node):
            reason = (kernel.refuses(call) or self._not_asked(kernel, node) or misplaced(kernel)
                      or next(filter(None, (rule(kernel, call) for rule in self.rules)), None))
            if reason is None:
                return kernel, refused
            refused.append((kernel.id, reason))
        return None, refused

    def _not_asked(self, kernel: Kernel, node: str) -> str | None:
        override = self.override(kernel.op, node)
        named = override is not None and override.kernel == kernel.name
        if kernel.option is None or named or kernel.option in self.registry.options.given():
            return None
        return f"needs --{kernel.option.replace('_', '-')}"

    def no_kernel(self, call: Call, node: str, refused: Sequence[tuple[str, str]]) -> NoKernelError:
        """Make the error for a node that nothing takes: what was asked, what was tried, what to
        do."""
        inputs = ", ".join(f"{k} {s}" for k, s in call.inputs.items() if s is not None)
        lines = [f"no kernel for node {node}: {call.op.name}({inputs})",
                 *(f"  {kernel}: {reason}" for kernel, reason in refused)]
        silent = [b for b in self.backends if not self.registry.kernels(b, call.op.name)]
        lines += [f"  {b}: has no kernel for {call.op.name}" for b in silent]
        able = [b for b in [*sorted(self.registry.specs), REFERENCE] if b not in self.backends
                and self._would_take(b, call)]
        if able:
            lines.append(f"  {' and '.join(able)} would take it; allow a fallback with --backend "
                         f"{','.join([*self.backends, able[0]])}")
        return NoKernelError("\n".join(lines))

    def _would_take(self, backend: str, call: Call) -> bool:
        """Tell whether a backend works here and has a kernel that takes the call."""
        try:
            kernels = self.registry.kernels(backend, call.op.name)
            return any(k.refuses(call) is None for k in kernels)
        except KernelyardError:  # doctor says more
            return False
