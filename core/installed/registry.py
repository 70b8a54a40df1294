"""Registry: holds the backends and kernels that the installed plugins offer."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import core.ops  # noqa: F401 - fills the vocabulary
from core.errors import (
    BackendError,
    ClashError,
    KernelyardError,
    OptionError,
    PluginError,
    missing_packages,
    worded,
)
from core.installed import api1
from core.installed.choice import EVERY_PLUGIN, PluginChoice
from core.installed.loader import Plugins, starts
from core.ir.op import Op, register_op
from core.plugins.backend import Backend, BackendOptions, BackendSpec
from core.plugins.checks import check_backend, check_entry, check_op
from core.plugins.kernel import Kernel, check_kernel
from core.reading import shown

#: hooks of the shape register(name, thing) or register(thing with a `key`)
TABLES = ("register_models", "register_checkpoints", "register_rope_types",
          "register_pretokenizers")
REFERENCE = "reference"  #: the definitions as a backend, see core.devices.reference
#: what core itself brings, and its kernels: not among the installed backends
BUILT_IN: dict[str, tuple[BackendSpec, Callable[[], Iterable[Kernel]]]] = {}
#: Ours: no other name is advised as something to install, since anybody may publish under it.
OUR_BACKENDS = ("cpu_numba", "cpu_numpy", "cuda_cupy", "cuda_pycuda")


class Registry:
    """Hold backends by name, opened on first use; kernels by backend and op, best first; what other
    hooks register, by name.

    sources  the distribution that each kernel came from
    owners   the distribution that each backend came from
    opened   the backends that are in use, by name
    """

    def __init__(self, plugins: Plugins | None = None,
                 options: BackendOptions | None = None) -> None:
        self.plugins = plugins or Plugins()
        self.options = options or BackendOptions()
        self.specs: dict[str, BackendSpec] = {}
        self.owners: dict[str, str] = {}
        self.sources: dict[Kernel, str] = {}
        self._kernels: dict[str, dict[str, list[Kernel]]] = {}
        self.opened: dict[str, Backend] = {}
        self._tables: dict[str, dict[str, Any]] = {}
        self._renamed: dict[Kernel, Kernel] = {}
        self._lost_ops: set[tuple[str, str]] = set()  # (plugin, op) that another plugin defines
        self.plugins.collect("register_ops", self._add_op, check_op, Op)
        self.plugins.collect("register_backends", self._add_backend, check_backend,
                             BackendSpec)

    def table(self, hook: str) -> Mapping[str, Any]:
        """Return what the plugins register by `register(name, thing)` in this hook, or by
        `register(thing)` where things have a `key`.

        A name that is taken is dropped, and listed in `plugins.dropped`.
        """
        if hook not in self._tables:
            found: dict[str, Any] = {}
            owners: dict[str, str] = {}

            def add(plugin: str, *things: Any) -> None:  # noqa: ANN401
                name, thing = things if len(things) == 2 else (things[0].key, things[0])
                if name in found:
                    raise ClashError(f"{hook}: {name!r} is already registered by {owners[name]}; "
                                     "this one is left out")
                found[name], owners[name] = thing, self.plugins.distributions[plugin]
            self.plugins.collect(hook, add, check_entry)
            self._tables[hook] = found
        return self._tables[hook]

    def load_tables(self) -> None:
        """Call every hook that `table` serves, so that what they drop or break is known."""
        for hook in TABLES:
            self.table(hook)

    def guest(self, kernel: Kernel) -> bool:
        """Tell whether a kernel comes from another distribution than its backend."""
        return self.sources[kernel] != self.owners.get(kernel.backend)

    def _add_op(self, plugin: str, op: Op) -> None:
        try:
            register_op(op)
        except ClashError:
            self._lost_ops.add((plugin, op.name))
            raise

    def _add_backend(self, plugin: str, spec: BackendSpec) -> None:
        if spec.name in BUILT_IN:
            raise ClashError(f"backend {spec.name!r} is core's own; give this one another name")
        self.specs[spec.name] = spec
        self.owners[spec.name] = self.plugins.distributions[plugin]

    def spec(self, name: str) -> BackendSpec:
        """Raises BackendError listing the installed backends and the broken plugins."""
        if name in self.specs or name in BUILT_IN:
            return self.specs[name] if name in self.specs else BUILT_IN[name][0]
        lines = [f"unknown backend {name!r}; installed: {', '.join(sorted(self.specs)) or 'none'}"]
        lines += [f"  broken plugin {b}" for b in self.plugins.broken]
        lines += [f"  plugin {p.name} (from {p.distribution}) {p.reason}"
                  for p in self.plugins.lying]
        near = difflib.get_close_matches(name, [*self.specs, *OUR_BACKENDS], 1)
        lines += [f"  did you mean {n!r}?" for n in near]
        lines += [f"  install it with: pip install kernelyard-{n.replace('_', '-')} "
                  f"(or ./backends/{n} from a checkout)"
                  for n in [name, *near] if n in OUR_BACKENDS and n not in self.specs][:1]
        raise BackendError("\n".join(lines))

    def check_options(self, names: Sequence[str]) -> None:
        """Raise OptionError for an option that was set and that none of these backends takes."""
        for option in self.options.given():
            if not any(option in self.spec(name).options for name in names):
                takers = sorted(n for n, s in self.specs.items() if option in s.options)
                raise OptionError(
                    f"{', '.join(names)} {'does' if len(names) == 1 else 'do'} not use "
                    f"--{option.replace('_', '-')}; installed backends that take it: "
                    f"{', '.join(takers) or 'none'}")

    def unavailable(self, name: str) -> str | None:
        """Open the backend. Returns None if it can be used here, else the reason and the fix."""
        try:
            self.backend(name)
        except KernelyardError as error:
            return str(error)
        return None

    def backend(self, name: str) -> Backend:
        """Return the opened backend. Raises BackendError with the reason and the fix."""
        if name in self.opened:
            self.opened[name].check_alive()
            return self.opened[name]
        spec = self.spec(name)
        missing = {m: fix for m, fix in spec.requires.items() if not _importable(m)}
        if missing:
            raise missing_packages(f"backend {name} is unavailable", missing, BackendError)
        module, _, attribute = spec.target.partition(":")
        try:
            asked = {k: v for k, v in self.options.given().items() if k in spec.options}
            with starts(f"backend {name}", spec.target, "its start"):
                opened: Backend = getattr(importlib.import_module(module), attribute)(**asked)
            opened.name = name
        except (BackendError, OptionError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise BackendError(f"backend {name} is unavailable: {spec.target} failed with "
                               f"{worded(error)}") from error
        self.opened[name] = opened
        return opened

    def backend_class(self, name: str) -> type[Backend] | None:
        """Return the class of a backend that cannot be opened here, for what it says without a
        device; None if its module cannot be imported either."""
        module, _, attribute = self.spec(name).target.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except KeyboardInterrupt:
            raise
        except BaseException:  # as `backend` reports, with the reason
            return None
        return found if isinstance(found, type) and issubclass(found, Backend) else None

    def kernels(self, backend: str, op: str | None = None) -> list[Kernel]:
        """Return the kernels of an opened backend, higher priority first, then by name."""
        if backend not in self._kernels:
            self.backend(backend)
            table: dict[tuple[str, str], Kernel] = {}

            def check(plugin: str, kernel: Kernel) -> None:
                if kernel.backend != backend:
                    raise PluginError(
                        f"kernel {kernel.id} for op {kernel.op} was registered while {backend!r} "
                        "asked for its own kernels; register it for its backend")
                if (plugin, kernel.op) not in self._lost_ops:
                    check_kernel(self._served(plugin, kernel))

            def add(plugin: str, kernel: Kernel) -> None:
                kernel = self._served(plugin, kernel)
                if (plugin, kernel.op) in self._lost_ops:
                    raise ClashError(f"kernel {kernel.id}: its op {kernel.op!r} is left out, "
                                     "another plugin defines one of that name")
                if (kernel.op, kernel.name) in table:
                    taken = self.sources[table[kernel.op, kernel.name]]
                    raise ClashError(f"kernel {kernel.id} for op {kernel.op} is already registered "
                                     f"by {taken}; give this one another name")
                table[kernel.op, kernel.name] = kernel
                self.sources[kernel] = self.plugins.distributions[plugin]
            if backend in BUILT_IN:
                table = {(k.op, k.name): k for k in BUILT_IN[backend][1]()}
                self.owners[backend] = self.plugins.distributions.get("models", "kernelyard")
                self.sources.update(dict.fromkeys(table.values(), self.owners[backend]))
            self.plugins.collect("register_kernels", add, check, Kernel, backend=backend)
            if not table:
                raise BackendError("\n".join([f"backend {backend} registered no kernels",
                                              *map(str, self.plugins.broken)]))
            self._kernels[backend] = {}
            for kernel in sorted(table.values(), key=lambda k: (-k.priority, k.name)):
                self._kernels[backend].setdefault(kernel.op, []).append(kernel)
        by_op = self._kernels[backend]
        return by_op.get(op, []) if op is not None else [k for ks in by_op.values() for k in ks]

    def _served(self, plugin: str, kernel: Kernel) -> Kernel:
        """Return the kernel under its op's present name."""
        if self.plugins.versions[plugin] == 1 and kernel.op in api1.OPS:
            if kernel not in self._renamed:
                self._renamed[kernel] = replace(kernel, op=api1.OPS[kernel.op])
            return self._renamed[kernel]
        return kernel


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # a parent package is missing
        return False


def default_registry(options: BackendOptions | None = None,
                     choice: PluginChoice = EVERY_PLUGIN) -> Registry:
    """Return the registry of the chosen plugins, made once for each set of options and choice."""
    return _registry(options or BackendOptions(), choice)


@cache
def _registry(options: BackendOptions, choice: PluginChoice) -> Registry:
    return Registry(Plugins(choice=choice), options)


def split_backends(backends: str | Sequence[str]) -> tuple[str, ...]:
    """Split `"a,b"` or a list into names. Raises BackendError if it is empty or repeats."""
    names = tuple(n.strip() for n in backends.split(",")) if isinstance(backends, str) \
        else tuple(backends) if isinstance(backends, (list, tuple)) else ()
    if not names or len({n for n in names if isinstance(n, str) and n}) != len(names):
        raise BackendError(f"backend list {shown(backends)}: expected distinct names such as "
                           "cpu_numpy or cuda_cupy,cpu_numpy")
    return names

