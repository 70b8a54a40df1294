"""PluginChoice: states which of the installed plugins a user wants."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from core.errors import OptionError

ALWAYS = "models"  #: the plugin that is never left out: it brings the families and formats


@dataclass(frozen=True)
class PluginChoice:
    """Hold the plugins to load: `only` some (None: all), and all `without` some."""

    only: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()

    @classmethod
    def of(cls, only: str | Sequence[str] | None, without: str | Sequence[str]) -> PluginChoice:
        """Make a choice of "a,b" or lists. Raises OptionError for one that contradicts itself."""
        some = None if only is None else _names(only)
        apart = _names(without)
        if some == ():
            raise OptionError(f"--only-plugins {only!r} names no plugin; expected a list such as "
                              "cpu_numpy,cpu_numba")
        if ALWAYS in apart:
            raise OptionError(f"--without-plugin {ALWAYS}: it brings the model families and file "
                              "formats, and cannot be left out")
        if both := sorted({*(some or ())} & {*apart}):
            raise OptionError(f"--only-plugins and --without-plugin both name {', '.join(both)}")
        return cls(some, apart)

    def check(self, installed: Collection[str]) -> None:
        """Raise OptionError for a name that no installed plugin has."""
        for flag, names in (("--only-plugins", self.only or ()),
                            ("--without-plugin", self.without)):
            if unknown := [n for n in names if n not in installed]:
                raise OptionError(f"{flag} {','.join(unknown)}: no such plugin; installed: "
                                  f"{', '.join(sorted(installed)) or 'none'}")

    def takes(self, name: str) -> bool:
        """Tell whether a plugin is to be loaded."""
        return name == ALWAYS or (name not in self.without
                                  and (self.only is None or name in self.only))


EVERY_PLUGIN = PluginChoice()


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    texts = [given] if isinstance(given, str) else given
    return tuple(sorted({n.strip() for text in texts for n in text.split(",") if n.strip()}))
