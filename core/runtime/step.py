"""Describe a decode step: which graph it needs, how it samples, and who may observe it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from core.errors import OptionError
from core.ir.graph import Graph
from core.plan.plan import Plan
from core.reading import shown
from core.tensor.allocator import ALIGNMENT
from core.tensor.tensor import TensorSpec

BLOCK_SIZE = 16  # tokens of a block of the KV cache
#: states beside the KV cache: of a batch, the token sampled last in each slot, i32 [N]; of one
#: sequence, the tokens that a repetition penalty counts, i8 [1, V]
KEPT_TOKENS, SEEN = "kept_tokens", "seen"


@dataclass(frozen=True)
class GraphKind:
    """Name which graph a step needs.

    head      logits of no token (`none`), of chosen rows (`last`), or of every token (`all`)
    sampling  what follows: nothing, `argmax`, `sample`, or `sample_seen` (with repetition penalty)
    loop      whether the step has one token a sequence, and advances to the next by itself
    batch     whether the step is one of many sequences: ids may be tokens that the device sampled
              (`pick_ids`), R rows sample, and their tokens are kept there (`put_tokens`)
    adjust    what changes a batch's logits before sampling: nothing (`none`), single tokens
              (`listed`), or a `mask` too
    top       log-probabilities of the sampled token and of so many likeliest ones; None without
    """

    head: str
    sampling: str = "none"
    loop: bool = False
    batch: bool = False
    adjust: str = "none"
    top: int | None = None


#: the two that a greedy run begins with
DECODE, PROMPT = GraphKind("last", "argmax", loop=True), GraphKind("last", "argmax")


def step_dims(blocks: int) -> dict[str, int]:
    """Return the dimensions that all steps of one sequence share, which owns every block."""
    return {"S": 1, "B": blocks, "NB": blocks, "BS": BLOCK_SIZE}


def is_cache(state: str) -> bool:
    """Say whether a state of a graph belongs to the KV cache."""
    return state not in (KEPT_TOKENS, SEEN)


def packed_inputs(graph: Graph) -> tuple[dict[str, tuple[TensorSpec, int]], int]:
    """Return the inputs of a bound graph, each with its offset in one buffer, and the buffer's
    bytes."""
    places, size = {}, 0
    for value in graph.roots("input"):
        places[value.name] = value.spec, size
        size += -(-value.spec.nbytes // ALIGNMENT) * ALIGNMENT
    return places, size


@dataclass(frozen=True)
class Sampling:
    """Say how the next token is sampled; see `core.ops.sampling.Sample` for the exact order.

    temperature 0 is greedy. top_k 0, top_p 1, min_p 0 and penalty 1 (of repetition) are off.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise OptionError for a field that is no number."""
        for name, value in vars(self).items():
            if not isinstance(value, (int, float, np.number)) or value != value:
                raise OptionError(f"{name} is {shown(value)}, expected a number")

    @property
    def kind(self) -> str:
        if self.penalty != 1.0:
            return "sample_seen"
        return "argmax" if self.temperature == 0 else "sample"


class Observer(Protocol):
    """Runs a plan step by step in place of `Plan.run`: to check, trace or profile it."""

    def run(self, plan: Plan) -> None: ...
