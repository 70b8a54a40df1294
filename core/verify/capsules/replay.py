"""Replays a capsule: the same call by any backend, compared with the reference and the record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from core.errors import NoKernelError, OpError
from core.installed.registry import Registry, split_backends
from core.ir.op import Op, find_op
from core.ir.tolerance import Tolerance
from core.plan.arena import POISON
from core.plugins.kernel import Kernel
from core.tensor.tensor import Array
from core.verify.capsules.capsule import Capsule
from core.verify.capsules.provenance import environment, source_hash
from core.verify.compare import Comparison, Expected
from core.verify.expected import expectations
from core.verify.guarded_op import OpRun, run_guarded
from core.verify.policies import REFERENCE
from core.verify.verdict import judge_call

REPEAT = 3  # runs of each backend
#: What outputs and workspace hold before a run, in turn.
_FILLS = (POISON, 0)


@dataclass(frozen=True)
class Replayed:
    """Holds who computed the call, how each result compares with the reference (the worst of the
    runs), and whether its bits are the recorded ones. `refused` says why nothing was computed,
    `broken` what else is wrong, `notes` what else there is to know, `kernel` the one kernel that
    computed it."""

    who: str
    verdicts: Mapping[str, Comparison]
    same_bits: bool
    refused: str = ""
    broken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    runs: int = 1
    kernel: str = ""

    @property
    def label(self) -> str:
        """Return the kernel's name where one computed the call, else the backend's."""
        return self.kernel or self.who

    @property
    def ok(self) -> bool:
        return (bool(self.verdicts) and not self.broken
                and all(v.ok for v in self.verdicts.values()))


def replay(capsule: Capsule, backends: list[str], registry: Registry, *, repeat: int = REPEAT,
           ) -> list[Replayed]:
    """Judge the recorded results first, then each backend's, of `repeat` runs.

    Runs differ in what outputs and workspace hold before: NaN or zeros. In the first, and in each
    third from it, the kernel has run before, from other inputs. A kernel of the recorded source, in
    the recorded surroundings, must give the recorded bits.

    Raises OpError for inputs that the op's definition rejects, or results that it does not have.
    """
    op = find_op(capsule.op)
    op.check_values(capsule.inputs)
    expected = expectations(op, capsule.inputs, capsule.attrs)
    if set(capsule.outputs) != set(expected):
        raise OpError(f"the capsule has the results {sorted(capsule.outputs)}, but {op.name} gives "
                      f"{sorted(expected)}")
    made = recorded_kernel(capsule, registry)
    own = (made and made.tolerance) or op.tolerance
    recorded = Replayed(f"recorded: {capsule.entry.get('kernel', '?')}",
                        judge_call(expected, capsule.outputs, own).comparisons, True)
    done = [recorded]
    for name in backends:
        if name == REFERENCE:
            found = {k: e.rounded for k, e in expected.items()}
            done.append(Replayed(name, judge_call(expected, found, op.tolerance).comparisons,
                                 _same(found, capsule.outputs)))
            continue
        try:
            runs = [run_once(op, capsule, name, registry, fill=_FILLS[_held(i)],
                             again=i % 3 == 0) for i in range(repeat)]
        except NoKernelError as error:
            done.append(Replayed(name, {}, False, "; ".join(
                line.strip() for line in str(error).splitlines()[:2])))
            continue
        done.append(_judged(name, runs, capsule, recorded, expected, op.tolerance, registry))
    return done


def recorded_kernel(capsule: Capsule, registry: Registry) -> Kernel | None:
    """Return the kernel that a capsule names, None where it is not installed."""
    backend, _, name = str(capsule.entry.get("kernel", "")).partition(":")
    if backend not in registry.specs or registry.unavailable(backend) is not None:
        return None
    return next((k for k in registry.kernels(backend, capsule.op) if k.name == name), None)


def run_once(op: Op, capsule: Capsule, backend: str, registry: Registry, *, fill: int = POISON,
             again: bool = False) -> OpRun:
    """Run a capsule's call by a backend: by the recorded kernel where it is that backend's."""
    made = recorded_kernel(capsule, registry)
    fused = any(registry.kernels(b, op.name) for b in split_backends(backend))
    return run_guarded(op, capsule.inputs, capsule.attrs, backend=backend, registry=registry,
                       kernel=made.name if made is not None and made.backend == backend else None,
                       composed=not fused, fill=fill, again=again)


def _judged(name: str, runs: list[OpRun], capsule: Capsule, recorded: Replayed,
            expected: Mapping[str, Expected], tolerance: Tolerance, registry: Registry) -> Replayed:
    kernels = runs[0].kernels
    if len(kernels) == 1 and kernels[0].tolerance is not None:
        tolerance = kernels[0].tolerance
    every = [{k: a for k, a in run.results.items() if a is not None} for run in runs]
    verdicts: dict[str, Comparison] = {}
    for found in every:
        for key, said in judge_call(expected, found, tolerance).comparisons.items():
            verdicts[key] = max(verdicts.get(key, said), said, key=lambda c: (not c.ok, c.used))
    broken = list(dict.fromkeys(text for run in runs for text in run.broken))
    notes = []
    steady = all(k.deterministic for k in kernels)
    if steady and (unsteady := _unsteady(every)):
        broken.append(unsteady)
    same = all(_same(found, capsule.outputs) for found in every)
    right = not broken and all(v.ok for v in verdicts.values())
    if not same and [k.id for k in kernels] == [capsule.entry.get("kernel")]:
        now = environment(kernels[0], registry)
        other = [f"{k} ({capsule.versions.get(k)} then, {now.get(k)} now)"
                 for k in {**capsule.versions, **now} if capsule.versions.get(k) != now.get(k)]
        if capsule.source != source_hash(kernels[0], registry):
            notes.append("another source than recorded" if capsule.source else
                         "the capsule has no hash of the kernel's source")
        elif other:
            notes.append(f"the same source, but other surroundings: {', '.join(other)}")
        elif steady or (right and not recorded.ok):
            broken.append("same kernel, same source, other bits than recorded: it depends on more "
                          "than its inputs")
    return Replayed(name, verdicts, same, "", broken, notes, len(runs),
                    kernels[0].id if len(kernels) == 1 else "")


def _held(run: int) -> int:
    """Return which of the fills a run has: 0, 1, 1, 0, 1, 0, 0, 1 and so on (Thue and Morse), so
    that a kernel that counts its runs is not taken for one that reads what it has not written."""
    return run.bit_count() % 2


def _unsteady(every: list[dict[str, Array]]) -> str:
    """Say why runs from the same inputs differ, "" where they do not."""
    fills = [[run for i, run in enumerate(every) if _held(i) == held] for held in range(2)]
    if all(_same(found, same[0]) for same in fills for found in same):
        return "" if not fills[1] or _same(fills[0][0], fills[1][0]) else (
            "reads its outputs or its workspace before it writes them: other bits where they held "
            "zeros than where they held NaN")
    differ = sum(not _same(found, every[0]) for found in every)
    return (f"a race, or hidden state: {differ} of {len(every) - 1} repeats from the same inputs "
            "differ")


def _same(a: Mapping[str, Array], b: Mapping[str, Array]) -> bool:
    return all(a[k].tobytes() == b[k].tobytes() for k in b)
