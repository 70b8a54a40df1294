"""Measures speeds at published shapes on a GPU, by the command that anybody runs, each with its
verdict.

They are measured only where `--kernelyard-gpu-report` asks for them, by a machine that does
nothing else then.
Goals hold for the device that they were set for.
"""

import json
import subprocess
import sys

import pytest

from core.conformance.report import SPEEDS

GOALS_FOR = "NVIDIA H200"
LLAMA = "--shape llama3.2-1b --stored bf16"
#: backend, options of models.bench, the column, and the least that it should reach
GOALS = [
    ("cuda_cupy", "--shape tinyllama-1.1b", "decode_tokens_per_s", 700),
    ("cuda_cupy", "--shape tinyllama-1.1b --quantize int8", "decode_tokens_per_s", 1000),
    ("cuda_cupy", LLAMA, "decode_tokens_per_s", 1000),
    ("cuda_cupy", "--shape qwen2.5-0.5b --stored bf16", "decode_tokens_per_s", 1100),
    ("cuda_cupy", "--shape llama2-7b --stored bf16", "decode_tokens_per_s", 240),
    ("cuda_cupy", "--shape llama2-7b --stored bf16 --quantize int8", "decode_tokens_per_s", 320),
    ("cuda_cupy", f"{LLAMA} --prompt 2048 --tokens 16", "prefill_tokens_per_s", 120_000),
    ("cuda_pycuda", "--shape tinyllama-1.1b", "decode_tokens_per_s", 620),
    ("cuda_pycuda", "--shape tinyllama-1.1b --quantize int8", "decode_tokens_per_s", 800),
    ("cuda_pycuda", LLAMA, "decode_tokens_per_s", 820),
    ("cuda_pycuda", "--shape qwen2.5-0.5b --stored bf16", "decode_tokens_per_s", 800),
]
HOST_STEP_S = 100e-6
LONG, SHORT, KEPT = 4000, 100, 0.85  # decode at a long context keeps this share of its speed


@pytest.fixture
def bench(on_gpu, record_property):
    """Run models.bench on a backend, and put its row into the report."""
    rows: list[dict] = []
    record_property(SPEEDS, rows)

    def run(backend: str, options: str) -> dict:
        on_gpu(backend)
        done = subprocess.run([sys.executable, "-m", "models.bench", "--backend", backend,
                               "--repeat", "3", "--json", *options.split()], capture_output=True,
                              text=True, timeout=200, check=False)
        assert done.returncode in (0, 1), done.stderr
        row = json.loads(done.stdout)[0]
        rows.append(row)
        assert row["ok"], row["verdict"]
        assert row["host_step_s"] < HOST_STEP_S
        return row
    return run


@pytest.mark.parametrize("backend, options, column, goal", GOALS,
                         ids=[f"{b}-{o}".replace("--", "").replace(" ", "-")
                              for b, o, *_ in GOALS])
def test_speed(bench, backend, options, column, goal):
    row = bench(backend, options)
    if GOALS_FOR in row["device"]:
        assert row[column] >= goal


@pytest.mark.parametrize("backend", ["cuda_cupy"])
def test_a_long_context_slows_decoding_little(bench, backend):
    short, long = (bench(backend, f"{LLAMA} --prompt {n} --tokens 100") for n in (SHORT, LONG))
    assert long["decode_tokens_per_s"] >= KEPT * short["decode_tokens_per_s"]
