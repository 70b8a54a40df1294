"""Measures on a GPU what a kernel's budget is too wide for: sums that are rounded once, and blocks
that split K between them. It runs where `--kernelyard-gpu-report` asks for it."""

import pytest
from product_checks import gated_error, sums_error

import core

GATED = [("cuda_cupy", "gate_up_parts", 8), ("cuda_cupy", "gate_up_parts", 40),
         ("cuda_pycuda", "gate_up_parts", 8), ("cuda_pycuda", "gate_up_mma", 40)]
SPLIT = [("cuda_pycuda", kernel, tokens, width, dtype)
         for tokens, width in ((40, 1040), (300, 4096), (2048, 2048))
         for kernel, dtype in (("linear_tiled", core.f32), ("linear_mma", core.f16))]


@pytest.mark.parametrize("dtype", [core.bf16, core.f16], ids=["bf16", "f16"])
@pytest.mark.parametrize("backend, kernel, tokens", GATED)
def test_swiglu_reads_sums_that_were_not_rounded(on_gpu, backend, kernel, tokens, dtype):
    say = on_gpu(backend)
    error = gated_error(backend, kernel, tokens, 264, 2048, dtype)
    say(f"{error:.3f} ULP")
    assert error < 0.55


@pytest.mark.parametrize("backend, kernel, tokens, width, dtype", SPLIT,
                         ids=[f"{case[1]}-T{case[2]}-K{case[3]}" for case in SPLIT])
def test_sums_of_several_blocks_are_whole(on_gpu, backend, kernel, tokens, width, dtype):
    say = on_gpu(backend)
    error = sums_error(backend, kernel, tokens, 264, width, dtype)
    say(f"{error:.1e} of the largest")
    assert error < 5e-5  # tensor cores cut sums off; a part that lacks takes 0.3
