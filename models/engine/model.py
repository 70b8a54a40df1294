"""Model: holds a loaded model, which gives logits and generates text."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

from core.errors import OptionError, PromptError
from core.plan.ledger import Ledger
from core.runtime.session import Session
from core.runtime.step import Sampling
from core.tensor.tensor import Array
from models.engine.config import EngineConfig
from models.engine.generate import Generation
from models.engine.model_sampling import MODEL, OPTIONS, settle_sampling
from models.engine.options import EngineOptions
from models.serving.prompt import encode_prompt
from models.serving.sampling_options import check_flags, check_sampling

if TYPE_CHECKING:
    from models.serving.engine import Engine
    from models.serving.grammar.params import StructuredOutputsParams
    from models.serving.request import RequestOutput

SEQUENCES = 64  # that `generate` computes at once


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
        self.session, self._settled = session, config
        self._engine: Engine | None = None

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

    @overload
    def generate(self, prompt_or_ids: str | Sequence[int], **how: Any) -> Generation: ...  # noqa: ANN401 - keywords below

    @overload
    def generate(self, prompt_or_ids: list[str] | list[list[int]], **how: Any,  # noqa: ANN401
                 ) -> list[RequestOutput]: ...

    def generate(self, prompt_or_ids: Any, *,  # type: ignore[misc] # keywords stand here alone
                 max_new_tokens: int = 256, temperature: float | None = None,
                 top_k: int | None = None, top_p: float | None = None, min_p: float | None = None,
                 repetition_penalty: float | None = None, stop: str | Sequence[str] = (),
                 seed: int | None = None, sampling: str = OPTIONS, reuse: bool = False,
                 allow_nonfinite: bool = False,
                 structured_outputs: StructuredOutputsParams | Mapping[str, Any] | None = None,
                 ) -> Generation | list[RequestOutput]:
        """Start generating; iterate over the result for pieces of text as they appear.

        A list of texts, or of lists of ids, is generated at once, many sequences in a step: the
        result is a list of outputs in the same order, each as if its prompt had been alone.

        What is not given is off: temperature 0, greedy; top_k 0, top_p 1, min_p 0,
        repetition_penalty 1. With sampling="model" it is as the model's files say
        (generation_config.json, GGUF's general.sampling.*), with their stop texts too.
        A seed fixes what is sampled, on any backend; without one it is random.
        With `reuse`, cache entries of a prefix shared with the previous call are kept.
        `structured_outputs` says which form texts must have (StructuredOutputsParams or a mapping
        of its fields), for a list of prompts.
        Raises PromptError or OptionError before anything is computed. Iterating raises CheckError
        where the largest logit is NaN or infinite, unless `allow_nonfinite` (see Generation).
        """
        chosen, origins = settle_sampling(sampling, {
            "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
            "repetition_penalty": repetition_penalty}, self.generation)
        stops = check_sampling(max_new_tokens=max_new_tokens, seed=seed, stop=stop, **chosen)
        if sampling == MODEL:
            stops = (*dict.fromkeys((*stops, *self.generation.stop)),)
        check_flags(reuse=reuse, allow_nonfinite=allow_nonfinite)
        if isinstance(prompt_or_ids, list) and any(
                isinstance(p, (str, list, tuple)) for p in prompt_or_ids):
            if reuse or allow_nonfinite:
                raise OptionError("reuse and allow_nonfinite are for one prompt, found a list")
            from models.serving.params import SamplingParams
            return self.engine.generate(prompt_or_ids, SamplingParams(
                **chosen, max_tokens=max_new_tokens, stop=stops, seed=seed,
                structured_outputs=structured_outputs))
        if structured_outputs is not None:
            raise OptionError("structured_outputs goes with a list of prompts; put this one into a "
                              "list")
        ids = self.encode(prompt_or_ids)
        if len(ids) > self.session.max_context:
            raise PromptError(f"the prompt has {len(ids)} tokens, the context holds "
                              f"{self.session.max_context}; shorten it, or raise --max-context")
        settled = Sampling(float(chosen["temperature"]), int(chosen["top_k"]),
                           float(chosen["top_p"]), float(chosen["min_p"]),
                           float(chosen["repetition_penalty"]),
                           secrets.randbits(64) if seed is None else int(seed))
        return Generation(self.session, self.tokenizer, ids, int(max_new_tokens), settled,
                          self.stop_ids, stops, reuse, allow_nonfinite, sampling_from=origins)

    @property
    def engine(self) -> Engine:
        """Return an engine for many sequences on the same weights, opened when first asked for."""
        with self.session.lock:
            self.session.alive()
            if self._engine is None:
                from models.engine.pool import open_engine  # which one sequence does not need
                self._engine = open_engine(self._settled, self.session.weights,
                                           EngineOptions(max_num_seqs=SEQUENCES))
            return self._engine

    def close(self) -> None:
        """Free everything that the model holds on its devices."""
        if self._engine is not None:
            self._engine.close()
        self.session.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

