"""Runs whole models on a GPU: against cpu_numpy and the reference, of two backends at once, from a
warm start, to a quiet end. They run where
`--kernelyard-gpu-report` asks for them, and may run side by side.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

import models
from core.conformance.cases import matrix
from core.errors import NoKernelError
from core.installed.registry import default_registry
from core.runtime.run_op import read_results, single_op_plan
from core.verify.compare import compare
from models.checkpoints.base import shipped_models

GPU_BACKENDS = ("cuda_cupy", "cuda_pycuda")
TOKENS, LOGITS = 100, 1e-4  # greedy ones, and the error as a share of the largest logit
#: Few layers where the CPU beside it needs the memory.
SHAPES = ("tinyllama-1.1b:f32:2", "llama3.2-1b:bf16:2", "qwen2.5-0.5b:bf16:2")


@pytest.mark.parametrize("backend", GPU_BACKENDS)
@pytest.mark.parametrize("name", shipped_models())
def test_shipped_models_draw_the_tokens_of_cpu_numpy(on_gpu, name, backend):
    say, logits, tokens = on_gpu(backend), [], []
    for each in ("cpu_numpy", backend):
        with models.load(name, backend=each, dtype="f32", max_context=512) as model:
            ids = (model.encode("Once upon a time") * 30)[:90]
            logits.append(model.logits(ids))
            generation = model.generate(ids, max_new_tokens=TOKENS)
            generation.stop_ids = frozenset()
            tokens.append(generation.run().tokens)
    error = float(np.abs(logits[0] - logits[1]).max() / np.abs(logits[0]).max())
    say(f"{TOKENS} greedy tokens, logits within {error:.1e} of the largest")
    assert tokens[0] == tokens[1] and error < LOGITS


def verify(*args: str) -> str:
    """`models.verify` must find no kernel wrong; its last line."""
    done = subprocess.run([sys.executable, "-m", "models.verify", *args], capture_output=True,
                          text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("backend", GPU_BACKENDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_real_shapes_are_right_node_by_node(on_gpu, shape, backend, tmp_path):
    """Run freely, then check every kernel on the other's tensors, against cpu_numpy and the
    reference."""
    say = on_gpu(backend)
    say(verify(backend, "cpu_numpy", "reference", "--model", f"random:{shape}", "--prompt-ids",
               ",".join(map(str, range(1, 41))), "--max-new-tokens", "4", "--capsules",
               str(tmp_path)))


@pytest.mark.parametrize("name", shipped_models())
def test_two_backends_in_one_pass(on_gpu, name, tmp_path):
    """Run kernels of both in one forward pass, on shared tensors; and compare all with each
    other."""
    for backend in GPU_BACKENDS:
        say = on_gpu(backend)
    say(verify("cpu_numpy", *GPU_BACKENDS, "cuda_cupy+attention=cuda_pycuda",
               "cuda_pycuda+linear=cuda_cupy", "cuda_pycuda,cuda_cupy", "--model", name, "--dtype",
               "f32", "--max-new-tokens", str(TOKENS), "--capsules", str(tmp_path)))


def test_three_votes_on_every_op_and_dtype(on_gpu):
    """Compare each backend's first kernel for a case with the reference: who has one has a vote."""
    for backend in GPU_BACKENDS:
        say = on_gpu(backend)
    wrong, votes = [], []
    for case in matrix(default_registry(), GPU_BACKENDS[0]):
        if case.example is None:
            continue
        for backend in ("cpu_numpy", *GPU_BACKENDS):
            try:
                plan = single_op_plan(case.op, case.arrays, case.attrs, backend=backend)
            except NoKernelError:
                continue  # cpu_numpy computes in float32
            plan.run()
            votes.append(case.id)
            named = dict(zip(case.op.result_names, read_results(plan, case.op), strict=True))
            if not all(compare(a, case.expected[k], plan.bindings[0].tolerance).ok
                       for k, a in named.items() if a is not None):
                wrong.append((backend, case.id))
    three = sum(votes.count(id) == 3 for id in set(votes))
    say(f"{len(votes)} votes on {len(set(votes))} cases, three on {three} of them")
    assert not wrong and three > 100


@pytest.mark.parametrize("backend", GPU_BACKENDS)
def test_a_second_start_compiles_nothing(on_gpu, backend, run_cli, tmp_path, monkeypatch):
    say = on_gpu(backend)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first, second = (run_cli("--backend", backend, "--max-new-tokens", "8", code=0)
                     for _ in range(2))
    kept = len(list(tmp_path.rglob("*.cubin")))
    say(f"{kept} kernels kept")
    assert kept and "compiling kernels" in first.stderr and "compiling" not in second.stderr


@pytest.mark.parametrize("backend", GPU_BACKENDS)
@pytest.mark.parametrize("ending, code", [
    ("pass", 0), ("raise SystemExit(3)", 3), ("raise ValueError('on purpose')", 1),
    ("import os, signal; os.kill(os.getpid(), signal.SIGINT)", -2)])
def test_the_process_ends_quietly(on_gpu, backend, ending, code):
    """End with the GPU open: normally, after an error, on Ctrl-C."""
    on_gpu(backend)
    script = ("from core.installed.registry import default_registry as r; "
              f"b = r().backend({backend!r}); "
              "x = [b.allocator.allocate(n) for n in (64, 1 << 21, 1 << 27)]; "
              f"print('opened', flush=True); {ending}")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          timeout=120, check=False, env=dict(os.environ))
    assert done.stdout == "opened\n"
    assert done.returncode in (code, 130 if code == -2 else code)
    assert not any(word in done.stderr.lower() for word in
                   ("abort", "context stack", "cleanup", "terminate"))
