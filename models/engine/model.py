"""Model: holds a loaded model, which gives logits and generates text."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from types import TracebackType

from core.errors import PromptError
from core.plan.ledger import Ledger
from core.runtime.session import Session
from core.runtime.step import Sampling
from core.tensor.tensor import Array
from models.engine.config import EngineConfig
from models.engine.generate import Generation
from models.engine.model_sampling import MODEL, OPTIONS, settle_sampling
from models.serving.prompt import encode_prompt
from models.serving.sampling_options import check_flags, check_sampling


class Model:
    """Hold a loaded model. Close it, or use it in a `with` statement, to free its memory."""

    def __init__(self, config: EngineConfig, session: Session) -> None:
        checkpoint = config.checkpoint
        self.config = config.config
        self.activations = config.activations
        self.tokenizer = checkpoint.tokenizer
        self.stop_ids = frozenset(checkpoint.eos_ids)
        self.stops_from, self.generation = checkpoint.stops_from, checkpoint.generation
        self.path, self.name = checkpoint.path, checkpoint.name
        self.notes = checkpoint.notes
        self.session = session

    @property
    def ledger(self) -> Ledger:
        """Return which kernel runs each node, and why others do not."""
        return self.session.ledger

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """Return the token ids of a prompt, checked against the vocabulary. Raises PromptError."""
        return encode_prompt(prompt, self.tokenizer, self.config.vocab_size)

    def logits(self, ids: Sequence[int]) -> Array:
        """Return the logits after each token of one sequence, float32 [len(ids), vocab_size]."""
        encoded = self.encode(ids)
        with self.session.lock:
            self.session.truncate(0)
            result = self.session.prefill(encoded, head="all")
        assert result is not None  # head="all" returns logits
        return result

    def generate(self, prompt_or_ids: str | Sequence[int], *, max_new_tokens: int = 256,
                 temperature: float | None = None, top_k: int | None = None,
                 top_p: float | None = None, min_p: float | None = None,
                 repetition_penalty: float | None = None, stop: str | Sequence[str] = (),
                 seed: int | None = None, sampling: str = OPTIONS, reuse: bool = False,
                 allow_nonfinite: bool = False) -> Generation:
        """Start generating; iterate over the result for pieces of text as they appear.

        What is not given is off: temperature 0, greedy; top_k 0, top_p 1, min_p 0,
        repetition_penalty 1. With sampling="model" it is as the model's files say
        (generation_config.json, GGUF's general.sampling.*), with their stop texts too.
        A seed fixes what is sampled, on any backend; without one it is random.
        With `reuse`, cache entries of a prefix shared with the previous call are kept.
        Raises PromptError or OptionError before anything is computed. Iterating raises CheckError
        where the largest logit is NaN or infinite, unless `allow_nonfinite` (see Generation).
        """
        ids = self.encode(prompt_or_ids)
        chosen, origins = settle_sampling(sampling, {
            "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
            "repetition_penalty": repetition_penalty}, self.generation)
        stops = check_sampling(max_new_tokens=max_new_tokens, seed=seed, stop=stop, **chosen)
        if sampling == MODEL:
            stops = (*dict.fromkeys((*stops, *self.generation.stop)),)
        check_flags(reuse=reuse, allow_nonfinite=allow_nonfinite)
        if len(ids) > self.session.max_context:
            raise PromptError(f"the prompt has {len(ids)} tokens, the context holds "
                              f"{self.session.max_context}; shorten it, or raise --max-context")
        settled = Sampling(float(chosen["temperature"]), int(chosen["top_k"]),
                           float(chosen["top_p"]), float(chosen["min_p"]),
                           float(chosen["repetition_penalty"]),
                           secrets.randbits(64) if seed is None else int(seed))
        return Generation(self.session, self.tokenizer, ids, int(max_new_tokens), settled,
                          self.stop_ids, stops, reuse, allow_nonfinite, sampling_from=origins)

    def close(self) -> None:
        """Free everything that the model holds on its devices."""
        self.session.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

