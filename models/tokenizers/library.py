"""Calls the libraries that run tokenizers: texts and ids only, and whatever they raise becomes an
error of ours."""

from __future__ import annotations

from operator import index
from types import TracebackType

from core.errors import TokenizerError
from core.reading import shown

_PASSED = (KeyboardInterrupt, SystemExit, GeneratorExit, TokenizerError)


class library_errors:
    """Raise TokenizerError saying that `what` failed, also for a panic: `tokenizers` is written in
    Rust, whose panics are no Exception in Python. No generator: each token of a stream passes."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if error is None or isinstance(error, _PASSED):
            return
        raise TokenizerError(
            f"{self._what}: {str(error)[:300] or type(error).__name__}") from None


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
