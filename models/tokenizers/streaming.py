"""Turns a stream of token ids into a stream of text that never shows half a character."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter

from core.errors import TokenizerError
from models.tokenizers.base import NoTokenizer, Tokenizer

REPLACEMENT = "\ufffd"
CONTEXT = 6  # prompt tokens that the first new one is decoded after: spaces depend on them


class IncrementalDecoder:
    """Returns the text of each new token, held back while a character's bytes are incomplete.

    A token's text can depend on the tokens before it, so a window of ids is decoded each time and
    the part that was there before is cut off. The window moves on whenever it ends on a whole
    character.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], prompt: Sequence[int] = ()) -> None:
        self._decode = decode
        self._ids = _whole_tail(decode, list(prompt))
        self._done = len(decode(self._ids).rstrip(REPLACEMENT))
        self._window = len(self._ids)

    def push(self, token: int) -> str:
        """Return the text that has become certain with this token: often a word, or nothing."""
        self._ids.append(token)
        text = self._decode(self._ids)
        whole = text.rstrip(REPLACEMENT)
        new = whole[self._done:]
        self._done = max(self._done, len(whole))
        if len(whole) == len(text) and new:
            keep = self._ids[self._window:]
            self._ids, self._done = keep, len(self._decode(keep))
            self._window = len(keep)
        return new

    def flush(self, tokens: Sequence[int] = ()) -> str:
        """Return what is left at the end, after some last tokens: bytes that never became a
        character are U+FFFD."""
        self._ids += tokens
        text = self._decode(self._ids)[self._done:]
        self._done += len(text)
        return text


def _whole_tail(decode: Callable[[Sequence[int]], str], prompt: list[int]) -> list[int]:
    """Return the last CONTEXT ids, and up to three more so as not to begin inside a character."""
    for start in range(len(prompt) - CONTEXT, len(prompt) - CONTEXT - 4, -1):
        tail = prompt[max(0, start):]
        if start <= 0 or not decode(tail).startswith(REPLACEMENT):
            break
    return tail


class StopStrings:
    """Cuts a stream of text at the first stop string, which may span several pieces; `found`."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = [s for s in stops if s]
        self.found: str | None = None
        self._held, self._shown = "", list[bool]()

    @property
    def hit(self) -> bool:
        return self.found is not None

    def push(self, text: str, *, shown: bool = True) -> str:
        """Return the text that is surely before any stop string. Sets `found` to a complete one.
        Text that is not `shown`, a special token's, counts for stop strings only."""
        self._held += text
        self._shown += [shown] * len(text)
        found = [(i, s) for s in self.stops if (i := self._held.find(s)) >= 0]
        if found:
            start, self.found = min(found, key=itemgetter(0))
            text = self._release(start)
            self._held, self._shown = "", []
            return text
        keep = max((n for s in self.stops for n in range(1, min(len(s), len(self._held) + 1))
                    if self._held.endswith(s[:n])), default=0)
        return self._release(len(self._held) - keep)

    def flush(self) -> str:
        """Return what was held back, at the end."""
        return self._release(len(self._held))

    def _release(self, cut: int) -> str:
        text = "".join(c for c, shown in zip(self._held[:cut], self._shown, strict=False) if shown)
        self._held, self._shown = self._held[cut:], self._shown[cut:]
        return text


class StoppedText:
    """Turns a stream of tokens into the text before the first stop string.

    Special tokens have no text, but count where a stop string contains theirs. Raises
    TokenizerError for stop strings without a tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], stops: Sequence[str]) -> None:
        if stops and isinstance(tokenizer, NoTokenizer):
            raise TokenizerError(f"{tokenizer.reason}; without it there is no text in which "
                                 f"to stop at {stops[0]!r}")
        self._decoder = IncrementalDecoder(tokenizer.decode, prompt)
        self._stops = StopStrings(stops)
        self._hidden = {i: text for text, i in tokenizer.special_tokens.items()
                        if any(text in stop for stop in stops)}

    @property
    def found(self) -> str | None:
        """Return the stop string that ended the text."""
        return self._stops.found

    def push(self, token: int, *, stops: bool = True) -> str:
        """Return the text that has become certain; without `stops` it is part of no stop string."""
        text = self._decoder.push(token)
        if not (stops and self._stops.stops):
            return self._stops.flush() + text
        text = self._stops.push(text)
        if token in self._hidden and not self._stops.hit:
            text += self._stops.push(self._hidden[token], shown=False)
        return text

    def flush(self) -> str:
        """Return what was held back, at the end; nothing after a stop string."""
        if self._stops.hit:
            return ""
        return self._stops.push(self._decoder.flush()) + self._stops.flush()
