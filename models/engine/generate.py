"""Generate text: prefill, decode, stop, and account for the time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from core.errors import CheckError, LifetimeError
from core.runtime.session import Session
from core.runtime.step import Sampling
from core.verify.capsules.recorder import FiniteCheck
from models.serving.sampling_options import check_call
from models.tokenizers.base import Tokenizer
from models.tokenizers.streaming import StoppedText


@dataclass
class Stats:
    """Hold times in seconds. The prefill ends with the first token; decode makes the others."""

    prompt_tokens: int = 0
    new_tokens: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        decoded = max(0, self.new_tokens - 1)
        prefill_rate = self.prompt_tokens / self.prefill_s if self.prefill_s else 0
        decode_rate = decoded / self.decode_s if self.decode_s else 0
        return {**asdict(self), "prefill_tokens_per_s": prefill_rate,
                "decode_tokens_per_s": decode_rate}


@dataclass
class Generation:
    """Run a generation: iterate over it for pieces of text; the fields fill as it goes.

    finish_reason is `stop` (a stop id or string), `length` (max_new_tokens or a full context),
    `interrupted` (Ctrl-C), `nonfinite` (below) or, before the end, empty. `tokens` includes a final
    stop id. Threads may share a model: `run` and `stream` wait for each other; a loop over pieces
    that another generation has overtaken raises LifetimeError.

    sampling_from  which file, or `option`, stated the fields of `sampling`
    nonfinite  the position of the first token whose largest logit was NaN or infinite, else None.
               It raises CheckError, and the token is left out, unless `allow_nonfinite`. It is
               looked for where logits lie in the host's memory: on a GPU that would cost a wait
    """

    session: Session
    tokenizer: Tokenizer
    prompt_ids: list[int]
    max_new_tokens: int
    sampling: Sampling
    stop_ids: frozenset[int]
    stop: Sequence[str] = ()
    reuse: bool = False
    allow_nonfinite: bool = False
    nonfinite: int | None = None
    sampling_from: Mapping[str, str] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: str = ""
    stats: Stats = field(default_factory=Stats)
    _started: bool = False

    def __post_init__(self) -> None:
        self._text = StoppedText(self.tokenizer, self.prompt_ids, self.stop)

    def __iter__(self) -> Iterator[str]:
        text = self._text
        try:
            for token in self._tokens():
                piece = "" if token in self.stop_ids else text.push(token)
                self.text += piece
                if piece:
                    yield piece
                if text.found is not None:
                    self.finish_reason = "stop"
                    break
        except KeyboardInterrupt:
            self.finish_reason = "interrupted"
            self.text += text.flush()
            raise
        rest = text.flush()
        self.text += rest
        if rest:
            yield rest

    def stream(self, show: Callable[[str], object]) -> Generation:
        """Generate to the end, handing each piece to `show`; other threads wait for it.

        KeyboardInterrupt ends it and goes on to the caller: `text` and `tokens` hold what there is.
        """
        check_call(show=show)
        shown = 0
        with self.session.lock:
            try:
                for piece in self:
                    show(piece)
                    shown += len(piece)
            except KeyboardInterrupt:
                self.finish_reason = "interrupted"
                if len(self.text) > shown:  # what the decoder held back
                    show(self.text[shown:])
                raise
        return self

    def run(self) -> Generation:
        """Generate to the end without streaming; other threads wait for it."""
        return self.stream(lambda piece: None)

    def _shared_prefix(self) -> int:
        """Count the prompt's first tokens that the KV cache holds; at least one is left to
        compute."""
        pairs = zip(self.session.ids, self.prompt_ids[:-1], strict=False)
        return next((i for i, (a, b) in enumerate(pairs) if a != b),
                    min(self.session.length, len(self.prompt_ids) - 1))

    def _tokens(self) -> Iterator[int]:
        session, stats = self.session, self.stats
        if self._started:
            raise LifetimeError("this generation has been run; call generate again")
        self._started = True
        with session.lock:  # another thread's prompt must not come between
            session.truncate(self._shared_prefix() if self.reuse else 0)
            session.sample_with(self.sampling, self.prompt_ids)
            stats.prompt_tokens = len(self.prompt_ids) - session.length
            start = time.perf_counter()
            session.prefill(self.prompt_ids[session.length:])
            token, epoch = session.token, session.epoch
            stats.prefill_s = time.perf_counter() - start
        while True:
            self._check_finite(session.logit)
            self.tokens.append(token)
            stats.new_tokens = len(self.tokens)
            if token in self.stop_ids:
                self.finish_reason = "stop"
            elif len(self.tokens) >= self.max_new_tokens or session.length >= session.max_context:
                self.finish_reason = "length"
            yield token
            if self.finish_reason:
                return
            with session.lock:
                session.alive()
                if session.epoch != epoch:
                    raise LifetimeError("another generation has started on this model; finish one "
                                        "before the next, or load the model twice")
                start = time.perf_counter()
                token = session.step()
                stats.decode_s += time.perf_counter() - start

    def _check_finite(self, logit: float | None) -> None:
        if logit is None or math.isfinite(logit) or self.nonfinite is not None:
            return
        self.nonfinite = len(self.prompt_ids) + len(self.tokens)
        if not self.allow_nonfinite:
            self.finish_reason = "nonfinite"
            raise CheckError(
                f"the largest logit for the token at position {self.nonfinite} (new token "
                f"{len(self.tokens) + 1}) is {logit}, expected a finite number; "
                f"{self._first_nonfinite()}; --check-finite leaves that call in a capsule, "
                "--allow-nonfinite (allow_nonfinite=True) goes on")

    def _first_nonfinite(self) -> str:
        """Compute the last step again, and name the first kernel in it that makes NaN or Inf."""
        session = self.session
        with session.lock, session.observed(FiniteCheck()):
            ids, new = list(session.ids), 1 if self.tokens else self.stats.prompt_tokens
            try:
                session.truncate(len(ids) - new)
                session.prefill(ids[len(ids) - new:])
            except CheckError as error:
                return str(error)
        return "computed again, no kernel of that step makes NaN or Inf: one of them depends on " \
            "more than its inputs"
