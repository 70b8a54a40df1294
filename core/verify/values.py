"""Reads a step's tensors: its inputs, its results, and what it may write in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from core.plan.lower import Binding
from core.plan.plan import Plan
from core.tensor.tensor import Array, Tensor

PAGE = 4096  # bytes of a weight that have one sum


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
    """Keeps a step's inputs as they are before its launch: to judge it by them, to see what it
    changed that it may not change, and to put that back.

    whole   keep states too, such as a KV cache, and sums of the weights' pages, prepacked ones
            too; else of a state only what the step may write
    places  the index of what a decode step may write; a prefill is compared as a whole
    lost    a weight was changed: there is no copy to put it back from
    """

    def __init__(self, plan: Plan, binding: Binding, *, whole: bool) -> None:
        self._plan, self._step, self.whole = plan, binding, whole
        every = places_of(binding)
        self.places = every if binding.call.phase == "decode" else {}
        self.lost = False
        self._kept: dict[str, Array] = {}
        self._rows: dict[str, tuple[Any, Array]] = {}  # of states, where not kept: place, contents
        self._sums = {f"prepacked weight `{k}`": (t, page_sums(t))
                      for k, t in plan.packed(binding).items() if whole}
        self._may = {k: every.get(k, ...) for k in binding.op.sig.mutated}
        for name, value in binding.inputs.items():
            if value is None:
                continue
            if value.kind == "weight":
                held = plan.weights.held(value.root.name, binding.device) if whole else None
                if held is not None:
                    self._sums[f"weight `{name}`"] = held, page_sums(held)
            elif whole or value.root.kind != "state":
                self._kept[name] = np.array(binding.arguments[name].numpy())
            elif name in self._may:
                place = self.places.get(name, ...)
                self._rows[name] = place, np.array(binding.arguments[name].numpy()[place])

    def inputs(self) -> dict[str, Array | None]:
        """Return the step's inputs as they were, not to be written to. A state that was not kept is
        as it is now, but for what the step may write."""
        found: dict[str, Array | None] = {}
        for p in self._step.op.sig.params:
            array = self._kept.get(p.name)
            if array is None:
                array = self._plan.read(self._step, p.name)
                if array is not None and p.name in self._rows:
                    place, rows = self._rows[p.name]
                    array[place] = rows
            found[p.name] = array
        return found

    def changed(self) -> list[str]:
        """Return a sentence for each input that was changed and may not be; put back what was
        kept of it."""
        said = []
        for name, old in self._kept.items():
            tensor = self._step.arguments[name]
            now = tensor.numpy()
            if name in self._may:
                if self._may[name] is ...:
                    continue
                old = old.copy()
                old[self._may[name]] = now[self._may[name]]
            if not same_bits(now, old):
                said.append(f"changed its input `{name}`{_outside(name in self._may)}: "
                            f"{differing(now, old)}")
                tensor.write(old)
        for name, (tensor, old) in self._sums.items():
            pages = np.flatnonzero(page_sums(tensor) != old)
            if len(pages):
                said.append(f"changed its {name}: from about byte {pages[0] * PAGE} of "
                            f"{tensor.nbytes}")
                self._sums[name] = tensor, page_sums(tensor)
                self.lost |= not name.startswith("prepacked")
        return said

    def rewind(self) -> None:
        """Put the inputs that the step updates back, so that it can run again."""
        for name in self._may:
            if name in self._kept:
                self._step.arguments[name].write(self._kept[name])
            elif name in self._rows:
                tensor, (place, rows) = self._step.arguments[name], self._rows[name]
                array = np.array(tensor.numpy())
                array[place] = rows
                tensor.write(array)


def page_sums(tensor: Tensor) -> Array:
    """Return the XOR of each page's 64-bit words: another value where a page has changed. It reads
    memory as fast as that comes, so that weights can be watched."""
    flat = np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8)
    whole = flat.nbytes // PAGE * PAGE
    rest = np.zeros(PAGE, np.uint8)
    rest[:flat.nbytes - whole] = flat[whole:]
    sums = np.bitwise_xor.reduce(flat[:whole].view(np.uint64).reshape(-1, PAGE // 8), axis=1)
    return np.append(sums, np.bitwise_xor.reduce(rest.view(np.uint64)))


def reversed_floats(array: Array) -> Array:
    """Return a float array's elements in reverse, anything else as it is: other values of the same
    kind, as another step would have. Integers are places and tokens, which have to fit."""
    return array if array.dtype.kind in "iu" else array.reshape(-1)[::-1].reshape(array.shape)


def same_bits(a: Array, b: Array) -> bool:
    """Compare two arrays of one shape and dtype byte by byte."""
    if a.nbytes < 1 << 16:
        return a.tobytes() == b.tobytes()
    x, y = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (a, b))
    return np.array_equal(x, y)


def differing(now: Array, old: Array) -> str:
    """Say how many elements of two arrays have other bits, and where the first is."""
    a, b = (np.ascontiguousarray(x).reshape(-1).view(np.uint8).reshape(x.size, -1)
            for x in (now, old))
    at = np.flatnonzero((a != b).any(axis=1))
    first = [int(i) for i in np.unravel_index(int(at[0]), now.shape)]
    return f"{len(at)} of {now.size} elements, the first at {first}"


def _outside(updated: bool) -> str:
    return " outside of what it may write" if updated else ""
