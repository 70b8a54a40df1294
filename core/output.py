"""Keeps standard output for results: what plugins print goes to standard error, with their name."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any

#: C0 without newline and tab, DEL, C1, and what turns the direction of a line's text
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def escaped(text: str) -> str:
    """Return a text that a terminal shows and does not obey: ESC becomes the four characters
    \\x1b."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


class _Named:
    """Write lines to standard error with a name before each. A plugin may keep it for later."""

    def __init__(self, who: str) -> None:
        self._who, self._part = who, ""

    def write(self, text: str) -> int:
        *lines, self._part = (self._part + text).split("\n")
        for line in lines:
            self._say(line)
        return len(text)

    def end(self) -> None:
        """Write what has no end of line yet."""
        if self._part:
            self._say(self._part)
            self._part = ""

    def _say(self, line: str) -> None:
        if sys.stderr is not None:
            print(escaped(f"{self._who} printed: {line}"), file=sys.stderr, flush=True)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - buffer, encoding, reconfigure, ...
        return getattr(sys.stderr, name)


@contextmanager
def named_output(who: str) -> Iterator[None]:
    """Send to standard error what is printed meanwhile, a line at a time with `who` before it.

    What other programs and C libraries write goes there too, without the name.
    """
    kept = None
    if sys.stdout is not None:
        with suppress(OSError, ValueError, AttributeError):  # no descriptor: a notebook, a test
            sys.stdout.flush()
            if sys.stdout.fileno() == 1:
                kept = os.dup(1)
                os.dup2(2, 1)
    named = _Named(who)
    try:
        with redirect_stdout(named):
            yield
    finally:
        named.end()
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)
