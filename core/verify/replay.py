"""Replaying a capsule: the same call by any backend, held to the definition and to the record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.errors import NoKernelError, OpError
from core.plan.opinion import REFERENCE
from core.plugins.registry import Registry, split_backends
from core.runtime.run_op import run_kernel, run_reference
from core.tensor.tensor import Array
from core.verify.capsule import Capsule
from core.verify.compare import Comparison, compare
from core.verify.expected import expectations


@dataclass(frozen=True)
class Replayed:
    """Who computed it, how each result stands by the definition, and whether its bits are those
    that the capsule recorded. `refused` says why nothing was computed."""

    who: str
    verdicts: dict[str, Comparison]
    same_bits: bool
    refused: str = ""

    @property
    def ok(self) -> bool:
        return bool(self.verdicts) and all(v.ok for v in self.verdicts.values())


def replay(capsule: Capsule, backends: list[str], registry: Registry) -> list[Replayed]:
    """The recorded result first, then each backend's. Raises OpError for inputs that the op's
    definition rejects."""
    op = capsule.definition
    op.check_values(capsule.inputs)
    expected = expectations(op, capsule.inputs, capsule.attrs)

    def judged(who: str, found: dict[str, Array]) -> Replayed:
        if set(found) != set(expected):
            raise OpError(f"the capsule has the results {sorted(found)}, but {op.name} gives "
                          f"{sorted(expected)}")
        verdicts = {k: compare(a, expected[k], op.tolerance) for k, a in found.items()}
        same = all(a.tobytes() == capsule.outputs[k].tobytes() for k, a in found.items())
        return Replayed(who, verdicts, same)

    done = [judged(f"recorded: {capsule.entry.get('kernel', '?')}", capsule.outputs)]
    for name in backends:
        try:
            if name == REFERENCE:
                with np.errstate(all="ignore"):
                    made = [None if a is None else a.astype(expected[k].dtype.numpy)
                            for k, a in zip(op.result_names, run_reference(
                                op, capsule.inputs, capsule.attrs), strict=True)]
            else:
                fused = any(registry.kernels(b, op.name) for b in split_backends(name))
                made = list(run_kernel(op, capsule.inputs, capsule.attrs, backend=name,
                                       registry=registry, composed=not fused))
        except NoKernelError as error:
            done.append(Replayed(name, {}, False, str(error).splitlines()[0]))
            continue
        found = {k: a for k, a in zip(op.result_names, made, strict=True) if a is not None}
        done.append(judged(name, found))
    return done
