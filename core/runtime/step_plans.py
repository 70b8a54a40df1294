"""Keep the plans of a session: one for each kind of step and length of a prompt, with their
inputs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

import numpy as np

from core.errors import CheckError
from core.ir.graph import Graph
from core.plan.plan import Plan
from core.plan.policy import KernelPolicy
from core.plan.weights import WeightStore
from core.runtime.step import BLOCK_SIZE, GraphKind, sequence_inputs, step_dims, token_inputs
from core.tensor.host import HostAllocator
from core.tensor.tensor import Array, Tensor, TensorSpec

PROMPT_PLANS = 4  # plans kept for different prompt lengths; each owns its activations


class StepPlans:
    """Makes each plan when it is first asked for. Plans share the states and the inputs of the
    sequence; those of a prompt have inputs of their own.

    states  the KV cache, by name
    shared  inputs with one number for a sequence
    decode  inputs of the decode step with one number for a token
    """

    def __init__(self, build: Callable[[GraphKind], Graph], weights: WeightStore,
                 policy: KernelPolicy, vocab_size: int, max_context: int) -> None:
        self.policy, self.weights = policy, weights
        self._build, self._blocks = build, -(-max_context // BLOCK_SIZE)
        self._plans: OrderedDict[tuple[GraphKind, int], Plan] = OrderedDict()
        self._prompts: dict[int, dict[str, Tensor]] = {}
        self.states: dict[str, Tensor] = {}
        self.shared = self._zeros(sequence_inputs(vocab_size, self._blocks))
        self.shared["block_table"].write(np.arange(self._blocks, dtype=np.int32)[None])
        self.decode = self._zeros(token_inputs(1))

    def get(self, kind: GraphKind, tokens: int) -> Plan:
        """Return the plan of a step of that kind over `tokens`. Raises NoKernelError."""
        key = (kind, tokens)
        if key in self._plans:
            self._plans.move_to_end(key)
            return self._plans[key]
        inputs = self.decode if kind.loop else self._prompts.setdefault(
            tokens, self._zeros(token_inputs(tokens)))
        graph = self._build(kind).bind(step_dims(tokens, self._blocks))
        if not self.states:
            self.states = self._zeros({v.name: v.spec for v in graph.roots("state")})
        tensors = {**self.states, **self.shared, **inputs}
        plan = Plan(graph, self.policy, self.weights, tensors, repeats=kind.loop)
        self._plans[key] = plan
        prompts = [k for k in self._plans if not k[0].loop]
        for old in prompts[:-PROMPT_PLANS]:
            del self._plans[old]
        for size in set(self._prompts) - {n for k, n in self._plans if not k.loop}:
            del self._prompts[size]
        return plan

    def prompt(self, tokens: int) -> dict[str, Tensor]:
        """Return the inputs of the plans for a prompt of that length."""
        return self._prompts[tokens]

    def set(self, name: str, value: float) -> None:
        """Write one number of the sequence."""
        tensor = self.shared[name]
        tensor.write(np.array([value], tensor.dtype.numpy))

    @property
    def made(self) -> list[Plan]:
        """List the plans made so far, the one used last at the end."""
        return list(self._plans.values())

    def clear(self) -> None:
        """Let go of every plan and tensor."""
        for held in (self._plans, self._prompts, self.states, self.shared, self.decode):
            held.clear()

    def _zeros(self, specs: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
        allocator = self.policy.primary.allocator
        return {name: Tensor.zeros(spec.sizes, spec.dtype, allocator)
                for name, spec in specs.items()}


def host_logits(plan: Plan) -> Array | None:
    """Return the logits [1, V] that a plan samples from as they lie in the host's memory, None if
    they lie elsewhere."""
    logits = plan.output("logits")
    return logits.numpy() if logits.device == HostAllocator.device else None


def sampled_logit(token: int, logits: Array | None, vocab_size: int) -> float | None:
    """Return a sampled token's logit, None where the logits are not at hand.

    It tells of the whole row: `argmax` and `sample` take the largest logit where that one is not
    finite, and no -Inf otherwise. Raises CheckError for a token outside the vocabulary.
    """
    if not 0 <= token < vocab_size:
        raise CheckError(f"a kernel sampled token {token}, expected 0 to {vocab_size - 1}; "
                         "--check reference finds the kernel")
    return None if logits is None else float(logits.item(token))
