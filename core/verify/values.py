"""Reads a step's tensors: its inputs, its results, and what it may write in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from core.plan.lower import Binding
from core.plan.plan import Plan
from core.tensor.tensor import Array


def inputs_of(plan: Plan, binding: Binding) -> dict[str, Array | None]:
    """Return copies of a step's inputs as they are now."""
    return {p.name: plan.read(binding, p.name) for p in binding.op.sig.params}


def results_of(binding: Binding) -> dict[str, Array]:
    """Return a step's results as they are now; host results are not copied."""
    return {k: t.numpy() for k, t in binding.results.items()}


def places_of(binding: Binding) -> Mapping[str, Any]:
    """Return `Op.writes` for a step's current inputs: by input, the index of what it may write."""
    if not binding.op.sig.mutated:
        return {}
    return binding.op.writes({k: t.numpy() for k, t in binding.arguments.items()})


class Before:
    """Keeps what a step is about to overwrite, so that its inputs can be read after it ran.

    whole   keep all of each updated input, and not only `places`
    places  the index of what a decode step may write; a prefill is compared as a whole
    """

    def __init__(self, plan: Plan, binding: Binding, *, whole: bool) -> None:
        self._plan, self._step = plan, binding
        self.places = places_of(binding) if binding.call.phase == "decode" else {}
        self._kept: dict[str, tuple[Any, Array]] = {}  # place and contents, by input
        for key in binding.op.sig.mutated:
            if binding.inputs[key] is not None:
                place = ... if whole else self.places.get(key, ...)
                self._kept[key] = place, np.array(binding.arguments[key].numpy()[place])

    def inputs(self) -> dict[str, Array | None]:
        """Return copies of the step's inputs as they were."""
        inputs = inputs_of(self._plan, self._step)
        for key, (place, array) in self._kept.items():
            whole = inputs[key]
            if whole is not None:
                whole[place] = array
        return inputs
