"""Turns the tokens of a request into text and says why it ended."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from models.serving.params import SamplingParams
from models.tokenizers.base import Tokenizer
from models.tokenizers.streaming import StoppedText


class OutputText:
    """Holds the text of one sequence, as its tokens come.

    stop_ids       ids that are no part of the text where it ends with them
    text           never contains a stop string, unless `include_stop_str_in_output`
    finish_reason  `stop`, `length` or `abort`; None before the end
    stop_reason    the stop string, or what the scheduler said of a stop id

    Raises TokenizerError for stop strings without a tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int],
                 params: SamplingParams, stop_ids: Collection[int] = ()) -> None:
        self.text = ""
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self._included, self._spared = params.include_stop_str_in_output, params.min_tokens
        self._stop_ids = stop_ids
        self._stream = StoppedText(tokenizer, prompt_ids, tuple(params.stop or ()))

    def push(self, token: int, finish_reason: str | None = None,
             stop_reason: int | str | None = None) -> str:
        """Add a token, with the reason for which the scheduler ended the request at it. Returns the
        new text. Where `finish_reason` is set then, the request is to be ended, if it runs."""
        self._spared -= 1
        piece = ""
        if finish_reason != "stop" or self._included or token not in self._stop_ids:
            piece = self._stream.push(token, stops=self._spared < 0)
        return self._end(piece, finish_reason, stop_reason)

    def abort(self) -> str:
        """End the text early. Returns what was held back."""
        return self._end("", "abort", None)

    def _end(self, piece: str, reason: str | None, stop_reason: int | str | None) -> str:
        if reason is not None:
            piece += self._stream.flush()
        if (found := self._stream.found) is not None:
            reason, stop_reason = "stop", found
            piece += found if self._included else ""
        self.finish_reason, self.stop_reason = reason, stop_reason
        self.text += piece
        return piece
