"""Discovery: load every plugin of the entry-point group, and let no broken one stop another."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from core.errors import ClashError, PluginError, worded
from core.installed.choice import EVERY_PLUGIN, PluginChoice
from core.installed.discovery import (
    described,
    dist_name,
    find_entries,
    lies_in,
    normalized,
    place,
    trusted,
)
from core.isolation import starting
from core.output import named_output
from core.plugins import hookspecs
from core.plugins.backend import API_VERSION, OLDEST_API
from core.reading import shown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

OURS = "kernelyard"  # the distribution whose plugins load first: where a name clashes, it keeps it
#: the distributions of this project; plugins of all others are named by the commands
OUR_DISTRIBUTIONS = frozenset({OURS, "kernelyard-cpu-numba", "kernelyard-cpu-numpy",
                               "kernelyard-cuda-cupy", "kernelyard-cuda-pycuda"})


@dataclass(frozen=True)
class BrokenPlugin:
    """Record a plugin that is left out, why, and the traceback where there is one."""

    name: str
    distribution: str
    reason: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.name} (from {self.distribution}): {self.reason}"


class Plugins:
    """Hold loaded plugins, by name with their distribution, and the broken ones.

    distributions  plugin -> "distribution version", in the order in which hooks are called: ours,
                   then by distribution, so that a clash is settled alike on every machine
    versions       plugin -> the API version that it is served with
    seconds        plugin -> how long its import took
    broken         plugins that are left out
    dropped        single things that are left out of a plugin that works
    lying          plugins that were not loaded, since they lie in the current folder

    `examine` looks at each entry point of others before it is imported here: it returns None, or
    the reason for leaving the plugin out. Raises OptionError for a `choice` of unknown names.
    """

    def __init__(self, found: Iterable[EntryPoint] | None = None, *,
                 choice: PluginChoice = EVERY_PLUGIN,
                 examine: Callable[[EntryPoint], str | None] = lambda _: None) -> None:
        self.manager = pluggy.PluginManager("kernelyard")
        self.manager.add_hookspecs(hookspecs)
        self.distributions: dict[str, str] = {}
        self.versions: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.broken: list[BrokenPlugin] = []
        self.dropped: list[BrokenPlugin] = []
        self.foreign: dict[str, str] = {}
        self._places: dict[str, Path | None] = {}
        entries, lying = find_entries() if found is None else (list(found), [])
        self.lying = [BrokenPlugin(e.name, source_of(e), why) for e, why in lying]
        choice.check([e.name for e in entries])
        for entry in sorted(entries, key=_order):
            if choice.takes(entry.name):
                self._load(entry, examine)

    def check_outside(self, model: Path) -> None:
        """Raise PluginError if a plugin was loaded from below a model's folder: whoever made the
        model would run code."""
        folder = (model if model.is_dir() else model.absolute().parent).resolve()
        for name, where in self._places.items():
            if where is not None and not trusted(where) and lies_in(where, folder):
                raise PluginError(f"plugin {name} lies in the folder of the model ({where}): "
                                  "install it, or take that folder out of PYTHONPATH")

    def _load(self, entry: EntryPoint, examine: Callable[[EntryPoint], str | None]) -> None:
        # pluggy's own loader stops at the first import error and skips a duplicate name in silence
        source = source_of(entry)
        if entry.name in self.distributions:
            if self.distributions[entry.name] != source:  # the same install found twice is no clash
                self.broken.append(BrokenPlugin(
                    entry.name, source, f"the name {entry.name!r} is already taken by "
                    f"{self.distributions[entry.name]}; uninstall one of the two"))
            return
        ours = is_ours(entry)
        if not ours and (reason := examine(entry)) is not None:
            self.broken.append(BrokenPlugin(entry.name, source, reason))
            return
        self._places[entry.name] = place(entry.dist)
        start = time.perf_counter()
        try:
            with starts(f"plugin {entry.name}", source, "import"):
                plugin = entry.load()
            self.seconds[entry.name] = time.perf_counter() - start
            version = served_version(entry.value, getattr(plugin, "KERNELYARD_API", None))
            self.manager.register(plugin, entry.name)
            try:
                self.manager.check_pending()  # a misspelt hook is silent until this call
            except pluggy.PluginValidationError:
                self.manager.unregister(name=entry.name)
                raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a plugin does, the others must load
            self.broken.append(BrokenPlugin(entry.name, source, worded(error),
                                            traceback.format_exc()))
        else:
            self.distributions[entry.name], self.versions[entry.name] = source, version
            if not ours:
                self.foreign[entry.name] = source

    def collect(self, hook: str, add: Callable[..., None],
                check: Callable[..., None] = lambda *_: None, kind: type | None = None,
                **kwargs: object) -> None:
        """Call a hook plugin by plugin, and `add(plugin, *things)` for each call of `register`.

        `check` takes the same arguments while the plugin's hook runs: what it raises breaks the
        plugin, of which nothing is added then; so does a thing that is not of `kind`, where that is
        given. An error that `add` raises drops that one thing.
        """
        for name in list(self.distributions):
            offered: list[tuple[Any, ...]] = []

            def register(*things: Any, name: str = name,  # noqa: ANN401 - what the hook offers
                         offered: list[tuple[Any, ...]] = offered) -> None:
                if kind is not None and (len(things) != 1 or not isinstance(things[0], kind)):
                    raise PluginError(f"{hook}: register{shown(things)} was called; expected one "
                                      f"{kind.__name__}")
                check(name, *things)
                offered.append(things)
            if not self._call(name, hook, register=register, **kwargs):
                continue
            for things in offered:
                try:
                    add(name, *things)
                except Exception as error:
                    what = "" if isinstance(error, ClashError) else f"{type(error).__name__}: "
                    dropped = BrokenPlugin(name, self.distributions[name], f"{what}{error}")
                    if dropped not in self.dropped:
                        self.dropped.append(dropped)

    def _call(self, name: str, hook: str, **kwargs: object) -> bool:
        """Call one plugin's hook. If it raises, the plugin becomes a broken one; False then."""
        plugin = self.manager.get_plugin(name)
        others = [p for p in self.manager.get_plugins() if p is not plugin]
        try:
            with starts(f"plugin {name}", self.distributions[name], hook):
                self.manager.subset_hook_caller(hook, others)(**kwargs)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # recorded, and shown by --list-backends
            self.manager.unregister(name=name)
            self.foreign.pop(name, None)
            self.broken.append(BrokenPlugin(name, self.distributions.pop(name),
                                            worded(error), traceback.format_exc()))
            return False
        return True


@contextmanager
def starts(name: str, source: str, what: str) -> Iterator[None]:
    """Name a plugin that starts: what it prints, and itself where that ends the process."""
    with named_output(name), starting(f"{name} ({source})", what):
        yield


def served_version(where: str, stated: object) -> int:
    """Return the API version that a plugin gets: the newest that both sides have.

    `stated` is the plugin's KERNELYARD_API: one version, or the first and the last that it was
    written for. Raises PluginError where core has none of them.
    """
    span = (stated, stated) if type(stated) is int else stated
    if not (isinstance(span, tuple) and len(span) == 2 and all(type(v) is int for v in span)):
        raise PluginError(f"{where} states KERNELYARD_API = {stated!r}; expected a version such as "
                          f"{API_VERSION}, or the first and the last as ({OLDEST_API}, "
                          f"{API_VERSION})")
    version = min(span[1], API_VERSION)
    if version < max(span[0], OLDEST_API):
        raise PluginError(f"{where} states KERNELYARD_API = {stated!r}, this core serves "
                          f"{OLDEST_API} to {API_VERSION}; install a matching version of "
                          f"{'kernelyard' if span[0] > API_VERSION else 'the plugin'}")
    return int(version)


def source_of(entry: EntryPoint) -> str:
    """Return "distribution version" of an entry point, or its target where there is none."""
    return described(entry.dist) if entry.dist else entry.value


def is_ours(entry: EntryPoint) -> bool:
    """Tell whether an entry point is of this project's distributions."""
    return entry.dist is not None and normalized(dist_name(entry.dist)) in OUR_DISTRIBUTIONS


def _order(entry: EntryPoint) -> tuple[bool, str, str, str]:
    distribution = dist_name(entry.dist) if entry.dist else ""
    return distribution != OURS, distribution, entry.name, entry.value
