"""Lists the distinct calls that a model's plans make, from shapes alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from core.conformance.calls import ModelCall
from core.errors import OptionError
from core.installed.registry import Registry
from core.ir.fusion import FusedOp
from core.ir.graph import Node, Value
from core.ir.match import find_matches
from core.ir.op import OPS, Op
from core.plan.lower import make_call
from core.runtime.batch import batch_dims, bucket, widest_dims
from core.runtime.step import BLOCK_SIZE, DECODE, PROMPT, GraphKind, step_dims
from models.checkpoints.base import Checkpoint
from models.engine.config import EngineConfig, settle
from models.engine.options import LoadOptions
from models.engine.pool import WIDEST

SHORT, PART = 37, 17  # tokens of a context, and of a prompt, that no kernel's tile divides
#: inputs by which the results of an op depend on the sequence's length
LENGTHS = {"positions", "slots", "seq_lens"}


def available(registry: Registry) -> list[str]:
    """List the installed backends that can be used here."""
    return [name for name in sorted(registry.specs) if registry.unavailable(name) is None]


def model_calls(checkpoint: Checkpoint, options: LoadOptions, registry: Registry, backend: str, *,
                prompts: Sequence[int] | None = None, contexts: Sequence[int] | None = None,
                sequences: int = 0) -> list[ModelCall]:
    """Return the calls of decode steps at each of `contexts`, and of prompts of these lengths, in
    the activations' dtype that `backend` prefers; every fused op that matches is among them.

    prompts   default: a short one, and as many tokens as are computed at once
    contexts  default: a short one, and the longest that the model, or --max-context, allows
    sequences  of an engine's steps, which are among them then: one in which each decodes a token,
               and one that computes several tokens of each, and samples, in every way there is
    Raises an InputError for a model that cannot be used.
    """
    kind = registry.backend(backend)
    config = settle(checkpoint, options, registry, kind.activation_dtype)
    longest = options.max_context or config.config.max_positions
    short = min(SHORT, longest)
    steps = [(DECODE, _alone(1, context), context) for context in contexts or (short, longest)]
    steps.append((GraphKind("last", "sample", loop=True), *steps[0][1:]))
    steps += [(PROMPT, _alone(length, length), length) for length in prompts or (
        min(PART, longest), min(config.chunk, longest))]
    if sequences:
        steps += [(kind, _together(sequences, tokens, short), short) for kind, tokens in (
            (GraphKind("all", "sample", batch=True), sequences),
            (replace(WIDEST, adjust="mask"), sequences * min(5, short)))]
    count: Counter[ModelCall] = Counter()
    for graph, dims, context in steps:
        if context > longest:
            raise OptionError(f"{context} tokens are more than the model's {longest}")
        # plans share calls, such as that of the head: a plan's nodes count once
        count |= Counter(_calls(config, graph, dims, context))
    return [replace(call, nodes=nodes) for call, nodes in count.items()]


def _alone(tokens: int, context: int) -> dict[str, int]:
    """Return the dimensions of a session's step."""
    return {**step_dims(-(-context // BLOCK_SIZE)), "T": tokens}


def _together(sequences: int, tokens: int, context: int) -> dict[str, int]:
    """Return the dimensions of an engine's step, whose cache has the blocks of all sequences."""
    width = -(-context // BLOCK_SIZE)
    return {**batch_dims(sequences, width), **widest_dims(sequences, tokens),
            "NB": bucket(sequences) * width}


def _calls(config: EngineConfig, kind: GraphKind, dims: Mapping[str, int], context: int,
           ) -> Iterator[ModelCall]:
    graph = config.graph(kind).bind(dims)
    for node in graph.nodes:
        yield _call(node.op, node.inputs, node.attrs, context)
    for op in OPS.values():
        covered: set[Node] = set()
        for match in find_matches(op, graph) if isinstance(op, FusedOp) else ():
            if not covered & {*match.nodes}:  # a plan takes the first of those that overlap
                covered.update(match.nodes)
                yield _call(op, match.inputs, match.attrs, context)


def _call(op: Op, inputs: Mapping[str, Value | None], attrs: Mapping[str, Any], context: int,
          ) -> ModelCall:
    specs: Iterable[tuple[str, tuple[str, tuple[int, ...]] | None]] = (
        (k, None if v is None else (v.spec.dtype.short, v.spec.sizes)) for k, v in inputs.items())
    return ModelCall(op.name, make_call(op, inputs, attrs).phase, tuple(specs),
                     tuple(attrs.items()),
                     context if LENGTHS & {k for k, v in inputs.items() if v is not None} else 0)
