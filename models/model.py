"""Model: a loaded model, which gives logits and generates text."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from types import TracebackType

import numpy as np

from core.decoding import Sampling
from core.errors import OptionError, PromptError
from core.ledger import Ledger
from core.session import Session
from core.tensor import Array
from models.checkpoint import Checkpoint
from models.config import ModelConfig
from models.generate import Generation


class Model:
    """A loaded model. Close it, or use it in a `with` statement, to free its memory."""

    def __init__(self, checkpoint: Checkpoint, session: Session, config: ModelConfig) -> None:
        self.config = config
        self.tokenizer = checkpoint.tokenizer
        self.stop_ids = frozenset(checkpoint.eos_ids)
        self.path = checkpoint.path
        self.notes = checkpoint.notes
        self.session = session

    @property
    def ledger(self) -> Ledger:
        """Which kernel runs each node, and why others do not."""
        return self.session.ledger

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """Token ids of a prompt; ids are checked against the vocabulary. Raises PromptError."""
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else [int(i) for i in prompt]
        if not ids or (isinstance(prompt, str) and not prompt):
            raise PromptError("the prompt is empty: give some text, or --prompt-ids")
        wrong = [i for i in ids if not 0 <= i < self.config.vocab_size]
        if wrong:
            raise PromptError(f"token ids {wrong[:5]} are outside the vocabulary: expected 0 to "
                              f"{self.config.vocab_size - 1}")
        return ids

    def logits(self, ids: Sequence[int]) -> Array:
        """float32 [len(ids), vocab_size]: the logits after each token of one sequence."""
        self.session.truncate(0)
        result = self.session.prefill(self.encode(ids), head="all")
        assert result is not None  # head="all" returns logits
        return result

    def generate(self, prompt_or_ids: str | Sequence[int], *, max_new_tokens: int = 256,
                 temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0,
                 repetition_penalty: float = 1.0, stop: str | Sequence[str] = (),
                 seed: int | None = None, reuse: bool = False) -> Generation:
        """Start generating; iterate over the result for pieces of text as they appear.

        temperature 0 is greedy. A seed fixes what is drawn, on any backend; without one it is
        random.
        With `reuse`, cache entries of a prefix shared with the previous call are kept.
        Raises PromptError or OptionError before anything is computed.
        """
        ids = self.encode(prompt_or_ids)
        _check_sampling(max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty)
        if len(ids) > self.session.max_context:
            raise PromptError(f"the prompt has {len(ids)} tokens, the context holds "
                              f"{self.session.max_context}; shorten it, or raise --max-context")
        self.session.truncate(self._shared_prefix(ids) if reuse else 0)
        drawn = secrets.randbits(64) if seed is None else seed
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, drawn)
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        self._last = Generation(self.session, self.tokenizer, ids, max_new_tokens, sampling,
                                self.stop_ids, stops)
        return self._last

    _last: Generation | None = None

    def _shared_prefix(self, ids: list[int]) -> int:
        before = [*self._last.prompt_ids, *self._last.tokens] if self._last else []
        cached = before[:self.session.length]
        same = next((i for i, (a, b) in enumerate(zip(cached, ids, strict=False)) if a != b),
                    min(len(cached), len(ids)))
        return min(same, len(ids) - 1)  # at least one token must be computed

    def close(self) -> None:
        """Free everything that the model holds on its devices."""
        self.session.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def _check_sampling(max_new_tokens: int, temperature: float, top_k: int, top_p: float, min_p: float,
                    repetition_penalty: float) -> None:
    for name, value, ok, expected in (
            ("max_new_tokens", max_new_tokens, max_new_tokens >= 1, "at least 1"),
            ("temperature", temperature, 0 <= temperature < np.inf, "0 (greedy) or more"),
            ("top_k", top_k, top_k >= 0, "0 (off) or more"),
            ("top_p", top_p, 0 < top_p <= 1, "above 0, at most 1 (off)"),
            ("min_p", min_p, 0 <= min_p <= 1, "0 (off) to 1"),
            ("repetition_penalty", repetition_penalty, 0 < repetition_penalty < np.inf,
             "above 0; 1 is off")):
        if not ok:
            raise OptionError(f"{name} is {value}, expected {expected}")
