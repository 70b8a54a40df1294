"""Keeps what a step's call may not change, and says what it changed."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.plan.lower import Binding
from core.plan.plan import Plan
from core.tensor.tensor import Array, Tensor
from core.verify.coverage import fixed_sizes
from core.verify.memory.buffers import Watched
from core.verify.memory.weights import PageSums
from core.verify.values import differing, places_of, same_bits


class Site:
    """Holds what a check reads of one binding in each of its calls, looked up once.

    inputs   tensors of the inputs that are no weights, by name; `states` names those that are kept
             between steps
    results  tensors of the results, by name
    """

    def __init__(self, plan: Plan, binding: Binding) -> None:
        self.plan, self.binding = plan, binding
        given = {k: v for k, v in binding.inputs.items() if v is not None}
        self.inputs = {k: Watched(binding.arguments[k]) for k, v in given.items()
                       if v.kind != "weight"}
        self.states = {k for k in self.inputs if given[k].root.kind == "state"}
        self.results = {k: Watched(t) for k, t in binding.results.items()}
        self.phase, self.mutated = binding.call.phase, binding.op.sig.mutated
        self._sizes, self._lengths = fixed_sizes(binding), None
        if "seq_lens" not in self.mutated:
            self._lengths = self.inputs.get("seq_lens")

    def found(self) -> dict[str, Array]:
        """Return the results as they are now; host results are not copied."""
        return {k: watched.array() for k, watched in self.results.items()}

    def sizes(self) -> dict[str, int]:
        """Return a call's dimensions by name, with the longest sequence as `length`."""
        if self._lengths is None:
            return self._sizes
        return {**self._sizes, "length": int(self._lengths.array().max(initial=0))}

    def weights(self) -> dict[str, Tensor]:
        """Return the weights that the kernel reads, prepacked ones too, by what they are called."""
        plan, binding = self.plan, self.binding
        found = {f"weight `{k}`": plan.weights.held(v.root.name, binding.device)
                 for k, v in binding.inputs.items() if v is not None and v.kind == "weight"}
        found.update((f"prepacked weight `{k}`", t) for k, t in plan.packed(binding).items())
        return {k: t for k, t in found.items() if t is not None}


class Before:
    """Keeps a step's inputs as they are before its launch: to judge it by them, to see what it
    changed that it may not change, and to put that back.

    whole   keep states too, such as a KV cache, and watch weights, prepacked ones too; else of a
            state only what the step may write
    sums    of the weights from earlier looks. They are taken anew where `anew`: a change is then
            one of this call
    places  the index of what a decode step may write; a prefill is compared as a whole
    lost    a weight was changed: there is no copy to put it back from
    """

    def __init__(self, site: Site, *, whole: bool, sums: PageSums | None = None, anew: bool = True,
                 ) -> None:
        self.site, self.whole, self.anew, self.lost = site, whole, anew, False
        every = places_of(site.binding) if site.mutated else {}
        self.places = every if site.phase == "decode" else {}
        self._kept: dict[str, bytes] = {}
        self._rows: dict[str, tuple[Any, Array]] = {}  # of states, where not kept: place, contents
        self._may = {k: every.get(k, ...) for k in site.mutated}
        for name, watched in site.inputs.items():
            if whole or name not in site.states:
                self._kept[name] = watched.array().tobytes()
            elif name in self._may:
                place = self.places.get(name, ...)
                self._rows[name] = place, np.array(watched.array()[place])
        self._weights = site.weights() if whole else {}
        self._sums = sums or PageSums()
        for tensor in self._weights.values():
            self._sums.keep(tensor, anew=anew)

    def inputs(self) -> dict[str, Array | None]:
        """Return the step's inputs as they were, not to be written to. A state that was not kept is
        as it is now, but for what the step may write."""
        found: dict[str, Array | None] = {}
        for p in self.site.binding.op.sig.params:
            if p.name in self._kept:
                found[p.name] = self._old(p.name)
                continue
            array = self.site.plan.read(self.site.binding, p.name)
            if array is not None and p.name in self._rows:
                place, rows = self._rows[p.name]
                array[place] = rows
            found[p.name] = array
        return found

    def _old(self, name: str) -> Array:
        tensor = self.site.inputs[name].tensor
        return np.ndarray(tensor.shape, tensor.dtype.numpy, self._kept[name])

    def changed(self) -> list[str]:
        """Return a sentence for each input that was changed and may not be; put back what was
        kept of it."""
        said = []
        for name, kept in self._kept.items():
            now = self.site.inputs[name].array()
            if now.tobytes() == kept or (name in self._may and self._may[name] is ...):
                continue
            old = self._old(name)
            if name in self._may:
                old = old.copy()
                old[self._may[name]] = now[self._may[name]]
                if same_bits(now, old):
                    continue
            said.append(f"changed its input `{name}`{_outside(name in self._may)}: "
                        f"{differing(now, old)}")
            self.site.inputs[name].tensor.write(old)
        return said + (self.changed_weights() if self.anew else [])

    def changed_weights(self) -> list[str]:
        """Return a sentence for each weight that has changed since the last look at it."""
        said = []
        for name, tensor in self._weights.items():
            first = self._sums.changed(tensor)
            if first is not None:
                said.append(f"changed its {name}: from about byte {first} of {tensor.nbytes}")
                self.lost |= not name.startswith("prepacked")
        return said

    def rewind(self) -> None:
        """Put the inputs that the step updates back, so that it can run again."""
        for name in self._may:
            if name in self._kept:
                self.site.inputs[name].tensor.write(self._old(name))
            elif name in self._rows:
                tensor, (place, rows) = self.site.inputs[name].tensor, self._rows[name]
                array = np.array(tensor.numpy())
                array[place] = rows
                tensor.write(array)


def _outside(updated: bool) -> str:
    return " outside of what it may write" if updated else ""
