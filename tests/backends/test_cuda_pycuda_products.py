"""Tests products of many rows of cuda_pycuda: how they are cut into tiles, and, on the CPU, blocks
that split K between them and sums that are rounded once."""

import shutil

import pytest

shapes = pytest.importorskip("cuda_pycuda.shapes", reason="needs ./backends/cuda_pycuda")
NEEDS_GCC = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, which compiles the "
                               "CUDA sources for the CPU here")
FAMILIES = {"simt": shapes.SIMT, "mma": shapes.MMA, "codes": shapes.MMA_CODES}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tokens", [1, 17, 40, 130, 2048, 16384])
@pytest.mark.parametrize("rows, width, unit", [([7], 33, 32), ([2048, 512, 512], 2048, 32),
                                               ([5632], 2048, 128), ([128256], 2048, 32)])
def test_tiles_cover_a_product_once(family, tokens, rows, width, unit):
    for processors in (4, 132):
        how = shapes.tiles(FAMILIES[family], tokens, rows, width, processors, unit=unit)
        (t, n), (across, down, parts) = how.tile, how.grid
        assert across == sum(-(-r // n) for r in rows) and (down - 1) * t < tokens <= down * t
        assert how.columns % unit == 0 and (parts - 1) * how.columns < width <= parts * how.columns
        assert parts == 1 or across * down < processors  # else blocks leave sums for nothing
        assert how.sums * 4 < 2**30 and how.workspace.shape[0] >= how.sums


def test_few_tiles_reach_every_multiprocessor():
    """A prompt of 32 tokens once had 32 blocks for 132 multiprocessors."""
    for family in (shapes.SIMT, shapes.MMA):
        across, down, parts = shapes.tiles(family, 32, [2048], 2048, 132).grid
        assert across * down * parts >= 120


SCRIPT = """
import pathlib
from cuda_on_cpu.driver import use
use(pathlib.Path("products"))
import core
from cuda_pycuda import shapes
from product_checks import codes_error, gated_error, sums_error
for family, width in ((shapes.SIMT, 1040), (shapes.MMA, 1040), (shapes.MMA_CODES, 1024)):
    assert shapes.tiles(family, 40, [72], width, 4).grid[2] > 1, "K is not split"
error = {"tiled": sums_error("cuda_pycuda", "linear_tiled", 40, 72, 1040, core.f32),
         "odd": sums_error("cuda_pycuda", "linear_tiled", 40, 72, 1039, core.bf16),
         "mma": sums_error("cuda_pycuda", "linear_mma", 40, 72, 1040, core.f16),
         "codes": codes_error("cuda_pycuda", "quantized_mma", 40, 72, 1024, 64)}
assert max(error.values()) < 1e-6, error
ulps = {f"{kernel} {tokens}": gated_error("cuda_pycuda", kernel, tokens, 72, 264, core.bf16)
        for kernel, tokens in (("gate_up_parts", 8), ("gate_up_parts", 20), ("gate_up_mma", 20))}
assert max(ulps.values()) < 0.51, ulps
print("right")
"""


@NEEDS_GCC
def test_split_sums_are_whole_and_swiglu_reads_them_unrounded(on_cpu):
    assert "right" in on_cpu(script=SCRIPT).stdout
