"""Model: holds a loaded model, which gives logits and generates text."""

from __future__ import annotations

import operator
import secrets
from collections.abc import Sequence
from types import TracebackType

import numpy as np

from core.errors import OptionError, PromptError
from core.plan.ledger import Ledger
from core.runtime.session import Session
from core.runtime.step import Sampling
from core.tensor.tensor import Array
from models.engine.config import EngineConfig
from models.engine.generate import Generation


class Model:
    """Hold a loaded model. Close it, or use it in a `with` statement, to free its memory."""

    def __init__(self, config: EngineConfig, session: Session) -> None:
        checkpoint = config.checkpoint
        self.config = config.config
        self.activations = config.activations
        self.tokenizer = checkpoint.tokenizer
        self.stop_ids = frozenset(checkpoint.eos_ids)
        self.path = checkpoint.path
        self.notes = checkpoint.notes
        self.session = session

    @property
    def ledger(self) -> Ledger:
        """Return which kernel runs each node, and why others do not."""
        return self.session.ledger

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """Return the token ids of a prompt, checked against the vocabulary. Raises PromptError."""
        if isinstance(prompt, str):
            ids = self.tokenizer.encode(checked_text(prompt)) if prompt else []
        else:
            ids = _integers(prompt)
        if not ids:
            raise PromptError("the prompt is empty: give some text, or --prompt-ids")
        wrong = [i for i in ids if not 0 <= i < self.config.vocab_size]
        if wrong:
            named = [f"{i} ({text!r})" if (text := self.tokenizer.token(i)) else str(i)
                     for i in wrong[:5]]
            raise PromptError(f"token ids [{', '.join(named)}] are outside the vocabulary: "
                              f"expected 0 to {self.config.vocab_size - 1}")
        return ids

    def logits(self, ids: Sequence[int]) -> Array:
        """Return the logits after each token of one sequence, float32 [len(ids), vocab_size]."""
        encoded = self.encode(ids)
        with self.session.lock:
            self.session.truncate(0)
            result = self.session.prefill(encoded, head="all")
        assert result is not None  # head="all" returns logits
        return result

    def generate(self, prompt_or_ids: str | Sequence[int], *, max_new_tokens: int = 256,
                 temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0,
                 repetition_penalty: float = 1.0, stop: str | Sequence[str] = (),
                 seed: int | None = None, reuse: bool = False) -> Generation:
        """Start generating; iterate over the result for pieces of text as they appear.

        temperature 0 is greedy. A seed fixes what is sampled, on any backend; without one
        it is random.
        With `reuse`, cache entries of a prefix shared with the previous call are kept.
        Raises PromptError or OptionError before anything is computed.
        """
        ids = self.encode(prompt_or_ids)
        _check_sampling(max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed,
                        stop)
        if len(ids) > self.session.max_context:
            raise PromptError(f"the prompt has {len(ids)} tokens, the context holds "
                              f"{self.session.max_context}; shorten it, or raise --max-context")
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty,
                            secrets.randbits(64) if seed is None else seed)
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        return Generation(self.session, self.tokenizer, ids, max_new_tokens, sampling,
                          self.stop_ids, stops, reuse)

    def close(self) -> None:
        """Free everything that the model holds on its devices."""
        self.session.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def checked_text(text: str) -> str:
    """Return the text if it can be encoded. Raises PromptError for bytes that were not valid
    UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(f"the prompt is not valid UTF-8 at character {error.start}: give it in "
                          "UTF-8") from None
    return text


def _integers(prompt: Sequence[int]) -> list[int]:
    try:
        if isinstance(prompt, (bytes, bytearray)):
            raise TypeError("bytes")
        return [operator.index(i) for i in prompt]
    except TypeError as error:
        raise PromptError(f"a prompt is a text or a list of integers ({error})") from None


def _check_sampling(max_new_tokens: int, temperature: float, top_k: int, top_p: float, min_p: float,
                    repetition_penalty: float, seed: int | None, stop: str | Sequence[str]) -> None:
    tiny, huge = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
    for name, value, kind, ok, expected in (
            ("max_new_tokens", max_new_tokens, int, lambda v: v >= 1, "at least 1"),
            ("temperature", temperature, float, lambda v: v == 0 or tiny <= v <= huge,
             "0 (greedy) or a positive float32"),
            ("top_k", top_k, int, lambda v: 0 <= v < 2**31, "0 (off) or more"),
            ("top_p", top_p, float, lambda v: 0 < v <= 1, "above 0, at most 1 (off)"),
            ("min_p", min_p, float, lambda v: 0 <= v <= 1, "0 (off) to 1"),
            ("repetition_penalty", repetition_penalty, float, lambda v: tiny <= v <= huge,
             "a positive float32; 1 is off"),
            ("seed", 0 if seed is None else seed, int, lambda v: True, "an integer")):
        number = isinstance(value, (int, float) if kind is float else int)
        if not number or isinstance(value, bool) or not ok(value):
            raise OptionError(f"{name} is {value!r}, expected {expected}")
    texts = (stop,) if isinstance(stop, str) else tuple(stop)
    if not all(isinstance(t, str) and (t or stop == ()) for t in texts):
        raise OptionError(f"stop is {stop!r}, expected texts that are not empty")
