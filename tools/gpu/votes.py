"""Three opinions of every op, dtype and sample: who is right, and who agrees with whom.

    python3 tools/gpu/votes.py [BACKEND ...]        (default: cpu_numpy cuda_cupy cuda_pycuda)

Each backend's first kernel for a case is held to the float64 definition. A backend that has none
for these dtypes (cpu_numpy computes in float32) has no vote there.
"""

from __future__ import annotations

import sys
from collections import Counter

from core.compare import compare
from core.conformance.cases import Case, dtype_id, matrix
from core.dispatch import run_kernel
from core.errors import NoKernelError
from core.registry import default_registry


def vote(case: Case, backends: list[str]) -> dict[str, bool]:
    """Whether each backend that takes the case is within the op's budget."""
    verdicts = {}
    for backend in backends:
        try:
            results = run_kernel(case.op, case.arrays, case.attrs, backend=backend)
        except NoKernelError:
            continue
        named = dict(zip(case.op.result_names, results, strict=True))
        verdicts[backend] = all(compare(a, case.expected[k], case.op.tolerance).ok
                                for k, a in named.items() if a is not None)
    return verdicts


def main(backends: list[str]) -> int:
    registry = default_registry()
    cells: dict[str, Counter[str]] = {}
    wrong = 0
    for case in matrix(registry, backends[-1]):
        if case.sample is None:
            continue
        verdicts = vote(case, backends)
        cell = cells.setdefault(f"{case.op.name} {dtype_id(case.dtypes)}", Counter())
        cell[f"{len(verdicts)} votes"] += 1
        for backend, right in verdicts.items():
            if not right:
                wrong += 1
                cell[f"{backend} WRONG"] += 1
                others = ", ".join(b for b, ok in verdicts.items() if ok) or "nobody"
                print(f"{case.id}: {backend} is wrong; {others} agree with the definition")
    for name, cell in cells.items():
        print(f"{name:48s} {', '.join(f'{n} × {what}' for what, n in sorted(cell.items()))}")
    total = sum(sum(n for what, n in c.items() if "votes" in what) for c in cells.values())
    print(f"{total} cases, {wrong} wrong answers")
    return 1 if wrong or not total else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["cpu_numpy", "cuda_cupy", "cuda_pycuda"]))
