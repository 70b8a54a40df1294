"""Compares the GPU memory that models take with the plan. Nothing else may use the GPU meanwhile;
it runs where `--kernelyard-gpu-report` asks for it."""

import json
import subprocess
import sys

import pytest

MEMORY = 0.03

#: In a fresh process: what a model takes of the device at its full context, beside the plan. One
#: of a single layer ran before, so that libraries and the kernels' code are there.
MEMORY_OF = """
import gc, json, sys
import models
from core.installed.registry import default_registry
from models.checkpoints.base import read_checkpoint
from models.plan import make_plan
from models.engine.options import LoadOptions
shape, backend = sys.argv[1:]
registry = default_registry()
device = registry.backend(backend).allocator
def used(name):
    with models.load(f"random:{name}", backend=backend) as model:
        model.session.prefill([1] * (model.session.max_context - 2))
        model.session.step()
        device.synchronize()
        return device.stats.allocated, device.available()
whole = device.available()
used(f"{shape}:1")
gc.collect()
free, held = device.available(), device.stats.allocated
planned = make_plan(read_checkpoint(f"random:{shape}", registry), LoadOptions(backend), registry)
taken, left = used(shape)
print(json.dumps({"planned": planned["at_context"]["total"], "code": whole - free,
                  "taken": taken - held, "gone": free - left}))
"""


@pytest.mark.parametrize("backend", ("cuda_cupy", "cuda_pycuda"))
@pytest.mark.parametrize("shape", ["llama3.2-1b:bf16", "tinyllama-1.1b:f32", "qwen2.5-0.5b:bf16"])
def test_memory_is_as_planned(on_gpu, shape, backend):
    """Compare what the allocator handed out, and what the device has less of, with the plan."""
    say = on_gpu(backend)
    done = subprocess.run([sys.executable, "-c", MEMORY_OF, shape, backend], capture_output=True,
                          text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    taken, gone = (found[key] / found["planned"] - 1 for key in ("taken", "gone"))
    say(f"planned {found['planned'] / 2**20:.0f} MiB, taken {taken:+.1%}, gone {gone:+.1%}; "
        f"before it libraries and code, {found['code'] / 2**20:.0f} MiB")
    assert abs(taken) <= MEMORY and abs(gone) <= MEMORY
