"""Write for people: control characters escaped, messages no longer than a screen, numbers whole."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from core.output import escaped

LINES, CHARACTERS = 24, 2000  #: a message's most
_NARROW = 120  # columns below which a table gives up space between its own


def shortened(text: str) -> str:
    """Return a text of at most LINES lines and CHARACTERS characters; its end says what is cut."""
    if len(text) > CHARACTERS:
        text = f"{text[:CHARACTERS - 40]}... ({len(text) - CHARACTERS + 40:,} characters more)"
    lines = text.split("\n")
    if len(lines) > LINES:
        lines[LINES - 1:] = [f"... ({len(lines) - LINES + 1} lines more)"]
    return "\n".join(lines)


def tell(text: str) -> None:
    """Print a message to standard error, escaped and shortened."""
    print(shortened(escaped(text)), file=sys.stderr)


class PlainConsole(Console):
    """Prints texts as they are: what files and plugins say is no markup, and is escaped."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - rich's
        super().__init__(**options, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 - rich's
        """Make every text of a call or of a table's cell."""
        return super().render_str(escaped(text), **options)


def open_console(*, stderr: bool = False) -> Console:
    """Open a console, wide for a file or a pipe: a table cut to 80 columns says too little."""
    console = PlainConsole(stderr=stderr)
    return console if console.is_terminal else PlainConsole(stderr=stderr, width=200)


def make_table(*headers: str, numbers: Collection[str] = (), title: str | None = None) -> Table:
    """Make a table in which nothing is cut: texts go on in the next line, and columns of `numbers`
    are as wide as these."""
    columns = [Column(header.replace(" ", "\n"), no_wrap=True) if header in numbers
               else Column(header, overflow="fold") for header in headers]
    return Table(*columns, title=title, title_justify="left",
                 collapse_padding=PlainConsole(stderr=True).width < _NARROW)
