"""Device memory of a model at its full context against what models.plan said before loading.

    python3 tools/gpu/memory.py BACKEND MODEL ...        (cuda_cupy random:llama3.2-1b:bf16)

`taken` is what the allocator handed out, `gone` what the device has less of: it holds the driver's
own, the kernels' code and the rounding of the pool as well. Exit code 1 if either is over 3 % off.
"""

from __future__ import annotations

import gc
import sys

import models
from core.registry import default_registry
from models.checkpoint import read_checkpoint
from models.plan import make_plan
from models.setting import Options

BOUND = 0.03


def compare(backend: str, name: str) -> bool:
    registry = default_registry()
    allocator = registry.backend(backend).allocator
    planned = make_plan(read_checkpoint(name, registry), Options(backend), registry)
    gc.collect()
    free, held = allocator.available(), allocator.stats.allocated
    with models.load(name, backend) as model:
        session = model.session
        session.prefill([1] * (session.max_context - 2))
        session.step()
        allocator.synchronize()
        taken, gone = allocator.stats.allocated - held, free - allocator.available()
        context = session.max_context
    total = planned["at_context"]["total"]
    off = [found / total - 1 for found in (taken, gone)]
    print(f"{name} on {backend}, context {context}: planned {total / 2**20:.1f} MiB, taken "
          f"{taken / 2**20:.1f} ({off[0]:+.1%}), gone {gone / 2**20:.1f} ({off[1]:+.1%})")
    return all(abs(share) <= BOUND for share in off)


if __name__ == "__main__":
    sys.exit(0 if all([compare(sys.argv[1], name) for name in sys.argv[2:]]) else 1)
