"""A bad CUDA kernel of somebody else's plugin (tests/support/zoo_gpu) is named by every tool: by
guard bytes, or by compute-sanitizer where it is there. What ends its process or the GPU's context
ends neither the report nor the cases that follow.

The kernels run where `--kernelyard-gpu-report` asks for it; that they compile is tested anywhere.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from zoo.table import install
from zoo_gpu import FAULTS, FILE

SUPPORT = Path(__file__).parents[1] / "support"
BACKENDS = pytest.mark.parametrize("backend", ["cuda_cupy", "cuda_pycuda"])
KERNEL = "bad_rms_norm"
SEEN = ("beyond", "far beyond", "before", "input", "shared race", "global race")
FATAL = ("illegal", "trap", "endless")
STEP_S = 20  # seconds that a kernel may take: the first compiles
FEW = ("-k", "float32-T1_D or float32-T17_D")  # cases for what takes a process each


@pytest.fixture
def run(tmp_path):
    """Return `run(backend, fault, *arguments, before)`: it runs a module with the plugin in the
    environment, and returns (exit code, all that it says)."""
    install(tmp_path / "site", "zoo_gpu")
    path = os.pathsep.join([str(tmp_path / "site"), str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}

    def started(backend, fault, module, *arguments, before=()):
        done = subprocess.run(
            [*before, sys.executable, "-m", module, "--only-plugins",
             f"zoo_gpu,cpu_numpy,{backend}", *arguments], cwd=tmp_path, text=True, timeout=280,
            check=False, env={**env, "PYTHONPATH": path, "ZOO_GPU": backend, "ZOO_FAULT": fault},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.returncode, done.stdout
    return started


def named(fault, code, text):
    """Return True where a tool's exit code says that a kernel failed, and it names it and why."""
    return code in (1, 3) and KERNEL in text and "Traceback" not in text and bool(
        re.search(FAULTS[fault], text))


MODEL = ("--model", "stories-llama2", "--prompt-ids", "5,12,19,26,33", "--max-new-tokens", "3",
         "--capsules", "capsules", "--dtype", "f32")
APART = ("--isolate", "--step-timeout", str(STEP_S))
CONFORM = ("models.conform", "--op", "rms_norm", "--dtype", "f32", *APART, "--backend")


@BACKENDS
@pytest.mark.parametrize("fault", [*SEEN, *FATAL])
def test_every_tool_names_the_kernel(on_gpu, run, backend, fault, tmp_path):
    say = on_gpu(backend)
    answers = {
        "conformance": run(backend, fault, *CONFORM, backend, *FEW * (fault in FATAL), "--", "-q"),
        "--check": run(backend, fault, "models.run", *MODEL, "--backend", backend, "--check",
                       "reference", *APART),
        "verify --blame": run(backend, fault, "models.verify", "cpu_numpy", backend, *MODEL,
                              "--blame", *APART)}
    left = sorted((tmp_path / "capsules").glob(f"*{KERNEL}*.npz"))
    if left:
        answers["replay"] = run(backend, fault, "models.verify", "--replay", str(left[0]),
                                "--backend", backend, *APART)
    missed = {tool: said for tool, said in answers.items() if not named(fault, *said)}
    say(f"{fault}: named by {', '.join(t for t in answers if t not in missed) or 'nobody'}")
    assert not missed, "\n".join(f"{t}: {c}\n{text[-2000:]}" for t, (c, text) in missed.items())
    cases = re.search(r"(\d+) failed", answers["conformance"][1])
    assert cases and int(cases[1]) > 1, "the suite ends with the first case that fails"


@BACKENDS
def test_a_right_kernel_of_the_zoo_is_right(on_gpu, run, backend):
    on_gpu(backend)
    code, text = run(backend, "right", *CONFORM, backend, "--", "-q")
    assert code == 0, text[-3000:]


@BACKENDS
@pytest.mark.parametrize(("tool", "fault", "says"), [
    ("memcheck", "illegal", "Invalid __global__ write"),
    ("racecheck", "shared race", "Error: Race reported|hazard")])
def test_the_sanitizer_names_the_kernel(on_gpu, run, backend, tool, fault, says):
    say = on_gpu(backend)
    if shutil.which("compute-sanitizer") is None:
        pytest.skip("needs compute-sanitizer, of the CUDA toolkit")
    code, text = run(
        backend, fault, "models.conform", "--op", "rms_norm", "--dtype", "f32", "--backend",
        backend, "--", "-q", "-x", "-k", "T17_D2048", before=(
            "compute-sanitizer", "--tool", tool, "--target-processes", "all", "--error-exitcode",
            "9"))
    say(next((line for line in text.splitlines() if "SUMMARY" in line), "no summary"))
    assert code == 9 and re.search(says, text) and KERNEL in text, text[-3000:]


@pytest.mark.parametrize("fault", range(len(FAULTS)))
def test_the_kernels_compile(fault):
    compiler = pytest.importorskip("cuda_pycuda.compiler", reason="needs ./backends/cuda_pycuda")
    tool = compiler.nvrtc()
    if tool is None:
        pytest.skip("needs NVRTC")
    code, _ = compiler.sources.compile(str(FILE), {"FAULT": fault}, "sm_90a", tool)
    assert code
