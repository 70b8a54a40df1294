"""Calls the libraries that run tokenizers: texts and ids only, and whatever they raise becomes an
error of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from operator import index

from core.errors import TokenizerError
from core.reading import shown


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


def given_text(text: object) -> str:
    """Return a text. Raises TokenizerError for anything else."""
    if not isinstance(text, str):
        raise TokenizerError(f"a tokenizer encodes a text, found {shown(text)}")
    return text


def given_ids(ids: object) -> list[int]:
    """Return token ids as Python's integers. Raises TokenizerError for anything else."""
    try:
        if isinstance(ids, (bytes, bytearray)):
            raise TypeError
        return [index(i) for i in ids]  # type: ignore[attr-defined] # anything may be given
    except Exception:  # whatever a sequence raises that is none
        raise TokenizerError(f"ids are {shown(ids)}, expected token ids") from None
