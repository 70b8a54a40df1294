"""Defines a request, what the scheduler knows of it while it runs, and what comes out of it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from models.serving.grammar.compiler import GrammarCompiler
from models.serving.grammar.state import Grammar
from models.serving.params import SamplingParams


class Status(Enum):
    """Names where a request is. PREEMPTED: it waits again, and its tokens are computed again."""

    WAITING = "waiting"
    RUNNING = "running"
    PREEMPTED = "preempted"
    FINISHED = "finished"


class Request:
    """Holds one sequence that is to be generated. With n > 1 there are n of them, by `index`.

    Set by the caller:
    ids          the prompt's ids; the scheduler appends each sampled id as soon as it is known
    eos_ids      the model's ids that end a text; none where the parameters ignore them
    salt         prompts share cached blocks only under an equal salt
    needs_token  no step is scheduled while a sampled id is unknown: its logits depend on it
    adjusts      its logits may be changed at some token
    plain        they are not, and no log-probabilities are asked for
    least        length of `ids` beyond which a stop id ends it
    grammar      says which tokens may come next, None where all may

    Changed by the scheduler alone:
    total        ids, those included that were sampled but are not known yet
    computed     tokens whose keys and values the steps scheduled so far write
    limit        `total` at which it ends with `length`
    blocks       blocks of the KV cache in order of position; `capacity` counts their tokens
    slot         a row of the engine's own, 0 to max_num_seqs - 1, while it runs; else -1
    last_step    number of the last step that names it
    cached_tokens  tokens of the prompt that were found in the prefix cache at first
    passed       requests that came later and were admitted before it
    """

    __slots__ = ("adjusts", "arrival", "blocks", "cached_tokens", "capacity", "computed", "entered",
                 "eos_ids", "finish_reason", "grammar", "ids", "index", "keys", "last_step",
                 "least", "limit", "needs_token", "order", "params", "passed", "plain",
                 "preemptions", "prompt_len", "request_id", "salt", "slot", "status", "stop_ids",
                 "stop_reason", "total")

    def __init__(self, request_id: str, prompt_ids: Sequence[int], params: SamplingParams, *,
                 eos_ids: frozenset[int] = frozenset(), salt: str = "", index: int = 0,
                 needs_token: bool = False, grammar: Grammar | None = None) -> None:
        self.request_id, self.index, self.params = request_id, index, params
        self.ids, self.prompt_len = list(prompt_ids), len(prompt_ids)
        self.salt, self.grammar = salt.encode(), grammar
        self.needs_token = needs_token or params.penalised or grammar is not None
        self.adjusts = bool(params.penalised or params.logit_bias or params.min_tokens
                            or grammar is not None)
        self.plain = not self.adjusts and params.logprobs is params.prompt_logprobs is None
        self.least = self.prompt_len + params.min_tokens
        self.eos_ids = frozenset[int]() if params.ignore_eos else eos_ids
        self.stop_ids = self.eos_ids | frozenset(params.stop_token_ids or ())
        self.status, self.slot, self.preemptions, self.passed = Status.WAITING, -1, 0, 0
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self.arrival, self.order = 0, (params.priority, 0)  # by `Scheduler.add`
        self.total = self.limit = self.prompt_len
        self.computed = self.capacity = self.last_step = self.cached_tokens = self.entered = 0
        self.blocks: list[int] = []
        self.keys: list[bytes] = []  # of the prefix cache, one for each full block of `ids`

    @property
    def finished(self) -> bool:
        return self.status is Status.FINISHED

    @property
    def pending(self) -> int:
        """Count the tokens that are sampled by steps in flight."""
        return self.total - len(self.ids)

    @property
    def output_ids(self) -> list[int]:
        """Return the ids that are known of the output, a final stop id included."""
        return self.ids[self.prompt_len:]

    def __repr__(self) -> str:
        return (f"Request({self.request_id!r}, index={self.index}, {self.status.value}, "
                f"{self.computed} of {self.total} tokens computed)")


def make_requests(request_id: str, ids: Sequence[int], params: SamplingParams, *,
                  eos_ids: frozenset[int], salt: str, grammars: GrammarCompiler) -> list[Request]:
    """Return the n texts of a request, each with a seed and a grammar of its own. Raises as
    `GrammarCompiler.start`."""
    form, seed = params.form, secrets.randbits(63)
    return [Request(request_id, ids, params.choice(i, seed), eos_ids=eos_ids, salt=salt, index=i,
                    grammar=None if form is None else grammars.start(form))
            for i in range(params.n)]


@dataclass(frozen=True)
class Logprob:
    """Holds a token's log probability. rank 1 is the likeliest of the vocabulary."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


#: the sampled or given token and the likeliest ones at one position
Logprobs: TypeAlias = dict[int, Logprob]


@dataclass
class CompletionOutput:
    """Holds one generated text.

    finish_reason  `stop`, `length`, `abort`, None before the end; `error` where the logits were not
                   finite, `refused` where the grammar came to a limit: `stop_reason` says more
    stop_reason    the stop string or the id of `stop_token_ids` that ended it; None for EOS
    """

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: list[Logprobs] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None

    @property
    def finished(self) -> bool:
        return self.finish_reason is not None


@dataclass
class RequestOutput:
    """Holds what a request has come to.

    prompt           the prompt's text, None where ids were given
    prompt_logprobs  one for each token of the prompt, None for the first
    cached_tokens    tokens of the prompt that the prefix cache had
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool = False
    prompt_logprobs: list[Logprobs | None] | None = None
    cached_tokens: int = 0
