"""Calls the libraries that run tokenizers: whatever they raise becomes an error of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import TokenizerError


@contextmanager
def library_errors(what: str) -> Iterator[None]:
    """Raise TokenizerError saying that `what` failed, also for a panic: `tokenizers` is written in
    Rust, whose panics are no Exception in Python."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, TokenizerError):
        raise
    except BaseException as error:
        raise TokenizerError(f"{what}: {str(error)[:300] or type(error).__name__}") from None
