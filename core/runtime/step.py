"""Describe a decode step: which graph it needs, how it samples, and who may observe it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from core.plan.plan import Plan
from core.tensor.dtype import DType, f32, i8, i32
from core.tensor.tensor import TensorSpec

BLOCK_SIZE = 16  # tokens of a block of the KV cache


@dataclass(frozen=True)
class GraphKind:
    """Name which graph a step needs.

    head      logits of no token, the last one, or all
    sampling  what follows: nothing, `argmax`, `sample`, or `sample_seen` (with repetition penalty)
    loop      whether the step has one token a sequence, and advances to the next by itself
    """

    head: str
    sampling: str = "none"
    loop: bool = False


#: the two that a greedy run begins with
DECODE, PROMPT = GraphKind("last", "argmax", loop=True), GraphKind("last", "argmax")


def step_dims(tokens: int, blocks: int) -> dict[str, int]:
    """Return a graph's named dimensions for `tokens` of one sequence that owns every block."""
    return {"T": tokens, "S": 1, "B": blocks, "NB": blocks, "BS": BLOCK_SIZE}


def sequence_inputs(vocab_size: int, blocks: int) -> dict[str, TensorSpec]:
    """Return the inputs that all steps of one sequence share."""
    one: dict[str, DType] = {"seq_lens": i32, "last_rows": i32, "top_k": i32, "temperature": f32,
                             "top_p": f32, "min_p": f32, "penalty": f32}
    return {**{name: TensorSpec((1,), dtype) for name, dtype in one.items()},
            "query_starts": TensorSpec((2,), i32), "seeds": TensorSpec((1, 2), i32),
            "seen": TensorSpec((1, vocab_size), i8), "block_table": TensorSpec((1, blocks), i32)}


def token_inputs(tokens: int) -> dict[str, TensorSpec]:
    """Return the inputs of a step with one number for each token."""
    return {name: TensorSpec((tokens,), i32) for name in ("ids", "positions", "slots")}


@dataclass(frozen=True)
class Sampling:
    """Say how the next token is sampled; see `core.ops.sampling.Sample` for the exact order.

    temperature 0 is greedy. top_k 0, top_p 1, min_p 0 and repetition_penalty 1 are off.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    @property
    def kind(self) -> str:
        if self.repetition_penalty != 1.0:
            return "sample_seen"
        return "argmax" if self.temperature == 0 else "sample"


class Observer(Protocol):
    """Runs a plan step by step in place of `Plan.run`: to check, trace or profile it."""

    def run(self, plan: Plan) -> None: ...
