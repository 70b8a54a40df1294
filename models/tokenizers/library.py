"""Calls the libraries that run tokenizers; whatever they raise becomes an error of ours."""

from __future__ import annotations

from contextlib import AbstractContextManager
from operator import index

from core.errors import TokenizerError
from core.reading import shown

_PASSED = (KeyboardInterrupt, SystemExit, GeneratorExit, TokenizerError)


class library_errors(AbstractContextManager):  # type: ignore[type-arg]
    """Raise TokenizerError saying that `what` failed, also for a panic of Rust's, which is no
    Exception in Python. No generator: each token of a stream passes."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and not isinstance(error, _PASSED):
            said = str(error)[:300] or type(error).__name__
            raise TokenizerError(f"{self._what}: {said}") from None


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
        return list(map(index, ids))  # type: ignore[call-overload] # anything may be given
    except Exception:  # whatever a sequence raises that is none
        raise TokenizerError(f"ids are {shown(ids)}, expected token ids") from None
