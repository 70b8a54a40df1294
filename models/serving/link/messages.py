"""Defines what an engine's process and the one that it serves say to each other.

Each sends lists of messages, tuples that begin with their kind:

    to the worker    ("add", id, ids as bytes of int32, parameters of each text, salt)
                     ("abort", ids of sequences)  ("ask", number, question)  ("close",)
    from the worker  ("ready", EngineFacts) or ("failed", error), once
                     ("added", id)  ("refused", id, error)  ("tokens", Delta)
                     ("next", ids of sequences, tokens): one more each, and nothing else
                     ("error", error): a step failed, and every request with it
                     ("hung", text): what does not end; the process ends itself after this
                     ("answer", number, value)  ("beat", EngineState), every BEAT seconds

Text stays outside: prompts are ids, and what comes back are tokens. The n texts of a request are n
sequences named by `sequence_id`, so that each can be ended by itself.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeAlias

from models.serving.live.check import CheckCounts
from models.serving.request import Logprobs
from models.serving.stats import EngineStats

#: its kind, and what belongs to it
Message: TypeAlias = tuple[Any, ...]


class Delta(NamedTuple):
    """Holds what a step added to one sequence; `prompt_logprobs` are those of more positions."""

    sequence_id: str
    token_ids: list[int]
    logprobs: list[Logprobs] | None = None
    prompt_logprobs: list[Logprobs | None] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    cached_tokens: int = 0


@dataclass(frozen=True)
class EngineFacts:
    """Holds what does not change while an engine runs.

    eos_ids      the model's ids that end a text
    kernels      how many nodes of a prompt and of a decode step each backend computes
    ledger_hash  of the kernels of these two steps
    """

    vocab_size: int
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    blocks: int
    block_size: int
    backends: tuple[str, ...]
    kernels: dict[str, int]
    ledger_hash: str
    eos_ids: frozenset[int] = frozenset()


@dataclass(frozen=True)
class EngineState:
    """Holds what an engine is doing, what it has done since it was opened, and what its check has
    counted, None without one. Plans are kept for each kind and size of step."""

    running: int = 0
    waiting: int = 0
    used_blocks: int = 0
    cache_queries: int = 0
    cache_hits: int = 0
    stats: dict[str, float] = field(default_factory=lambda: asdict(EngineStats()))
    check: CheckCounts | None = None
    plans: int = 0


def sequence_id(request_id: str, index: int) -> str:
    """Name one of the texts of a request."""
    return f"{request_id}/{index}"
