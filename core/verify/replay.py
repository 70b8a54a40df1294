"""Replays a capsule: the same call by any backend, compared with the reference and the record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.errors import NoKernelError, OpError
from core.ir.op import find_op
from core.plugins.registry import Registry, split_backends
from core.runtime.run_op import run_kernel
from core.tensor.tensor import Array
from core.verify.capsule import Capsule
from core.verify.compare import Comparison
from core.verify.expected import expectations
from core.verify.policies import REFERENCE
from core.verify.verdict import judge_call


@dataclass(frozen=True)
class Replayed:
    """Holds who computed the call, how each result compares with the reference, and whether its
    bits are the recorded ones. `refused` says why nothing was computed."""

    who: str
    verdicts: Mapping[str, Comparison]
    same_bits: bool
    refused: str = ""

    @property
    def ok(self) -> bool:
        return bool(self.verdicts) and all(v.ok for v in self.verdicts.values())


def replay(capsule: Capsule, backends: list[str], registry: Registry) -> list[Replayed]:
    """Judge the recorded results first, then each backend's.

    Raises OpError for inputs that the op's definition rejects, or results that it does not have.
    """
    op = find_op(capsule.op)
    op.check_values(capsule.inputs)
    expected = expectations(op, capsule.inputs, capsule.attrs)

    def judged(who: str, found: Mapping[str, Array]) -> Replayed:
        if set(found) != set(expected):
            raise OpError(f"the capsule has the results {sorted(found)}, but {op.name} gives "
                          f"{sorted(expected)}")
        same = all(a.tobytes() == capsule.outputs[k].tobytes() for k, a in found.items())
        return Replayed(who, judge_call(expected, found, op.tolerance).comparisons, same)

    done = [judged(f"recorded: {capsule.entry.get('kernel', '?')}", capsule.outputs)]
    for name in backends:
        if name == REFERENCE:
            done.append(judged(name, {k: e.rounded for k, e in expected.items()}))
            continue
        try:
            fused = any(registry.kernels(b, op.name) for b in split_backends(name))
            results = run_kernel(op, capsule.inputs, capsule.attrs, backend=name,
                                 registry=registry, composed=not fused)
        except NoKernelError as error:
            done.append(Replayed(name, {}, False, str(error).splitlines()[0]))
            continue
        done.append(judged(name, {k: a for k, a in zip(op.result_names, results, strict=True)
                                  if a is not None}))
    return done
