"""Discovery: load every plugin of the entry-point group, and let no broken one stop another."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from core.errors import PluginError
from core.plugins import hookspecs
from core.plugins.backend import API_VERSION

GROUP = "kernelyard.plugins"


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that is left out, why, and the traceback where there is one."""

    name: str
    distribution: str
    reason: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.name} (from {self.distribution}): {self.reason}"


class Plugins:
    """Loaded plugins, by name with their distribution, and the broken ones."""

    def __init__(self, found: Iterable[EntryPoint] | None = None) -> None:
        self.manager = pluggy.PluginManager("kernelyard")
        self.manager.add_hookspecs(hookspecs)
        self.distributions: dict[str, str] = {}
        self.broken: list[BrokenPlugin] = []
        for entry in sorted(entry_points(group=GROUP) if found is None else found,
                            key=lambda e: (not _built_in(e), e.name, e.value)):
            self._load(entry)

    def _load(self, entry: EntryPoint) -> None:
        # pluggy's own loader stops at the first import error and skips a duplicate name in silence
        source = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
        if entry.name in self.distributions:
            if self.distributions[entry.name] != source:  # the same install found twice is no clash
                self.broken.append(BrokenPlugin(
                    entry.name, source, f"the name {entry.name!r} is already taken by "
                    f"{self.distributions[entry.name]}; uninstall one of the two"))
            return
        try:
            plugin = entry.load()
            self._check(entry, plugin)
            self.manager.register(plugin, entry.name)
            try:
                self.manager.check_pending()  # a misspelt hook is silent until this call
            except pluggy.PluginValidationError:
                self.manager.unregister(name=entry.name)
                raise
        except (Exception, SystemExit) as error:  # whatever a plugin does, the others must load
            self.broken.append(BrokenPlugin(entry.name, source, f"{type(error).__name__}: {error}",
                                            traceback.format_exc()))
        else:
            self.distributions[entry.name] = source

    def _check(self, entry: EntryPoint, plugin: Any) -> None:  # noqa: ANN401 - any module
        version = getattr(plugin, "KERNELYARD_API", None)
        if version != API_VERSION:
            raise PluginError(f"{entry.value} states KERNELYARD_API = {version}, this core has "
                              f"{API_VERSION}; install a matching version of the plugin")

    def call(self, name: str, hook: str, **kwargs: object) -> bool:
        """Call one plugin's hook. If it raises, the plugin becomes a broken one; False then."""
        plugin = self.manager.get_plugin(name)
        others = [p for p in self.manager.get_plugins() if p is not plugin]
        try:
            self.manager.subset_hook_caller(hook, others)(**kwargs)
        except (Exception, SystemExit) as error:  # recorded, and shown by --list-backends
            self.manager.unregister(name=name)
            self.broken.append(BrokenPlugin(name, self.distributions.pop(name),
                                            f"{type(error).__name__}: {error}",
                                            traceback.format_exc()))
            return False
        return True

    def call_each(self, hook: str, **kwargs: object) -> None:
        """Call a hook plugin by plugin, so that one that raises is left out and the rest go on."""
        for name in list(self.distributions):
            self.call(name, hook, **kwargs)


def _built_in(entry: EntryPoint) -> bool:
    """Core's own plugins load first: where a name clashes, the newcomer is refused."""
    return entry.dist is not None and entry.dist.name == "kernelyard"
