"""compute-sanitizer over the conformance cases with small inputs: accesses out of bounds, and races
in shared memory. It runs where `--kernelyard-gpu-report` asks for it; start the four side by
side (-n 4)."""

import os
import re
import shutil
import subprocess
import sys

import pytest

LARGE = ("512", "2048", "2500", "4096", "4864", "5632", "8192", "11008", "32000", "32768", "40000",
         "128256", "131072", "151936", "S256")
SMALL = " and not ".join(("matches", *LARGE))
LIMIT_S = 560


@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
@pytest.mark.parametrize("backend", ["cuda_cupy", "cuda_pycuda"])
def test_kernels_are_clean(on_gpu, backend, tool, tmp_path):
    say = on_gpu(backend)
    if shutil.which("compute-sanitizer") is None:
        pytest.skip("needs compute-sanitizer, of the CUDA toolkit")
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(
        ["compute-sanitizer", "--tool", tool, "--target-processes", "all", "--error-exitcode", "9",
         sys.executable, "-m", "models.conform", "--backend", backend, "-q", "-k", SMALL,
         "--", "-p", "no:xdist", "-p", "no:benchmark"],
        capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=tmp_path, env=env)
    cases = re.search(r"(\d+) passed", done.stdout)
    summary = [line for line in (done.stdout + done.stderr).splitlines() if "SUMMARY" in line]
    say(f"{cases and cases[1]} cases; {'; '.join(summary)}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert cases and int(cases[1]) > 200 and summary
    assert all(re.search(r"\b0 (errors|hazards)", line) for line in summary)
