"""Registry: the backends and kernels that the installed plugins offer."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from functools import cache, partial

import core.ops  # noqa: F401 - fills the vocabulary
from core.errors import BackendError, KernelyardError, OptionError, PluginError
from core.ir.op import register_op
from core.plugins.backend import Backend, BackendOptions, BackendSpec
from core.plugins.kernel import Kernel, check_kernel
from core.plugins.loader import Plugins


class Registry:
    """Backends by name, opened on first use; kernels by backend and op, best first."""

    def __init__(self, plugins: Plugins | None = None,
                 options: BackendOptions | None = None) -> None:
        self.plugins = plugins or Plugins()
        self.options = options or BackendOptions()
        self.specs: dict[str, BackendSpec] = {}
        self._kernels: dict[str, dict[str, list[Kernel]]] = {}
        self._open: dict[str, Backend] = {}
        self.sources: dict[Kernel, str] = {}  #: the distribution that each kernel came from
        self.plugins.call_each("register_ops", register=register_op)
        for plugin in list(self.plugins.distributions):
            added: dict[str, BackendSpec] = {}  # a plugin that breaks halfway leaves nothing behind
            register = partial(self._add_backend, plugin, added)
            if self.plugins.call(plugin, "register_backends", register=register):
                self.specs.update(added)

    def _add_backend(self, plugin: str, added: dict[str, BackendSpec], spec: BackendSpec) -> None:
        if spec.name != plugin:
            raise PluginError(f"backend {spec.name!r} is registered by the plugin {plugin!r}; a "
                              "backend has the name of its entry point")
        added[spec.name] = spec

    def spec(self, name: str) -> BackendSpec:
        """Raises BackendError listing the installed backends and the broken plugins."""
        if name in self.specs:
            return self.specs[name]
        lines = [f"unknown backend {name!r}; installed: {', '.join(sorted(self.specs)) or 'none'}"]
        lines += [f"  broken plugin {b}" for b in self.plugins.broken]
        lines.append(f"  install it with: pip install kernelyard-{name.replace('_', '-')} "
                     f"(or ./backends/{name} from a checkout)")
        raise BackendError("\n".join(lines))

    def check_options(self, names: Sequence[str]) -> None:
        """Raise OptionError for an option that was set and that none of these backends takes."""
        for option in self.options.given():
            if not any(option in self.spec(name).options for name in names):
                takers = sorted(n for n, s in self.specs.items() if option in s.options)
                raise OptionError(
                    f"--{option.replace('_', '-')} means nothing to {', '.join(names)}; installed "
                    f"backends that take it: {', '.join(takers) or 'none'}")

    def unavailable(self, name: str) -> str | None:
        """None if the backend can be used here, else the reason with its fix. Opens the backend."""
        try:
            self.backend(name)
        except KernelyardError as error:
            return str(error)
        return None

    def backend(self, name: str) -> Backend:
        """The opened backend. Raises BackendError with the reason and the fix."""
        if name in self._open:
            return self._open[name]
        spec = self.spec(name)
        missing = [f"module {m!r} is missing; fix: {fix}" for m, fix in spec.requires.items()
                   if not _importable(m)]
        if missing:
            raise BackendError(f"backend {name} is unavailable: {'; '.join(missing)}")
        module, _, attribute = spec.target.partition(":")
        try:
            asked = {k: v for k, v in self.options.given().items() if k in spec.options}
            opened: Backend = getattr(importlib.import_module(module), attribute)(**asked)
        except (BackendError, OptionError):
            raise
        except Exception as error:
            raise BackendError(f"backend {name} is unavailable: {spec.target} failed with "
                               f"{type(error).__name__}: {error}") from error
        opened.name = name
        self._open[name] = opened
        return opened

    def backend_class(self, name: str) -> type[Backend] | None:
        """The class of a backend that cannot be opened here, for what it says without a device;
        None if its module cannot be imported either."""
        module, _, attribute = self.spec(name).target.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except Exception:  # as `backend` reports, with the reason
            return None
        return found if isinstance(found, type) and issubclass(found, Backend) else None

    def kernels(self, backend: str, op: str | None = None) -> list[Kernel]:
        """The kernels of an opened backend, higher priority first, then by name."""
        if backend not in self._kernels:
            self.backend(backend)
            table: dict[tuple[str, str], Kernel] = {}
            for plugin in list(self.plugins.distributions):
                added = dict(table)  # a plugin that breaks halfway leaves nothing behind
                if self.plugins.call(plugin, "register_kernels", backend=backend,
                                     register=partial(self._add, added, backend)):
                    source = self.plugins.distributions[plugin]
                    self.sources.update({k: source for k in added.values()
                                         if k not in self.sources})
                    table = added
            if not table:
                raise BackendError("\n".join([f"backend {backend} registered no kernels",
                                              *map(str, self.plugins.broken)]))
            self._kernels[backend] = {}
            for kernel in sorted(table.values(), key=lambda k: (-k.priority, k.name)):
                self._kernels[backend].setdefault(kernel.op, []).append(kernel)
        by_op = self._kernels[backend]
        return by_op.get(op, []) if op is not None else [k for ks in by_op.values() for k in ks]

    def _add(self, table: dict[tuple[str, str], Kernel], backend: str, kernel: Kernel) -> None:
        if kernel.backend != backend:
            raise PluginError(f"kernel {kernel.id} for op {kernel.op} was registered while "
                              f"{backend!r} asked for its own kernels; register it for its backend")
        check_kernel(kernel)
        if (kernel.op, kernel.name) in table:
            raise PluginError(f"kernel {kernel.id} for op {kernel.op} is registered twice; "
                              "give it another name")
        table[kernel.op, kernel.name] = kernel


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # a parent package is missing
        return False


def default_registry(options: BackendOptions | None = None) -> Registry:
    """The registry of everything installed, made once for each set of options."""
    return _registry(options or BackendOptions())


@cache
def _registry(options: BackendOptions) -> Registry:
    return Registry(options=options)


def split_backends(backends: str | Sequence[str]) -> tuple[str, ...]:
    """`"a,b"` or a list as a tuple of names. Raises BackendError if it is empty or repeats."""
    names = tuple(n.strip() for n in backends.split(",")) if isinstance(backends, str) \
        else tuple(backends)
    if not names or not all(names) or len(set(names)) != len(names):
        raise BackendError(f"backend list {backends!r}: expected distinct names such as "
                           "cpu_numpy or cuda_cupy,cpu_numpy")
    return names

