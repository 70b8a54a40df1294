"""Compiles every CUDA source of cuda_pycuda to machine code, without spills, without a GPU: each
case by NVRTC, each source's first case by nvcc as well where that is installed."""

import re
import subprocess

import pytest

from core import cuda

compiler = pytest.importorskip("cuda_pycuda.compiler", reason="needs ./backends/cuda_pycuda")
NVRTC, NVCC = compiler.nvrtc(), compiler.nvcc()

TARGETS = ("sm_80", "sm_89", "sm_90a", "sm_100")
ALLOWED_SPILL = 0  # bytes of local memory that ptxas may store registers to, for any kernel
B, H, F = "bf16", "f16", "float"
ROW = {"ROWS": 1, "DEPTH": 8, "WARPS": 4, "STAGED": 1, "NORM": 0}
PAIR = {**ROW, "ROWS": 2}
CODES = {"BITS": 8, "GROUP": 64, "ZEROS": 0}
TILE = {"TILE_T": 128, "TILE_N": 128}
MMA = {**TILE, "BITS": 0, "ZEROS": 0, "GATED": 0}
BLOCKS = {"q4_k": {"BITS": 4, "GROUP": 32, "BLOCK": 256, "SCALES": 1, "ZEROS": 1},
          "q5_k": {"BITS": 5, "GROUP": 32, "BLOCK": 256, "SCALES": 1, "ZEROS": 1},
          "q6_k": {"BITS": 6, "GROUP": 16, "BLOCK": 256, "SCALES": 1, "ZEROS": 0},
          "q5_0": {"BITS": 5, "GROUP": 32, "BLOCK": 32, "SCALES": 0, "ZEROS": 0}}
ONE = {"CODES": 0, "WARPS": 8, "BLOCK": 16}

# source, defines: the shapes of TinyLlama, Llama-3.2-1B and Qwen2.5-0.5B, and odd ones
CASES = [
    ("adjust_logits.cu", {"A": F, "PIECE": 4}), ("adjust_logits.cu", {"A": B, "PIECE": 8}),
    ("adjust_logits.cu", {"A": H, "PIECE": 1}),
    ("advance.cu", {}), ("argmax.cu", {"A": F}), ("bandwidth.cu", {}),
    ("elementwise.cu", {"A": B, "S": F}), ("embedding.cu", {"W": B, "O": F}),
    ("kv_cache.cu", {"A": B, "C": B, "CODES": 0}), ("kv_cache.cu", {"A": H, "C": "i8", "CODES": 1}),
    ("log_probs.cu", {"A": F}), ("log_probs.cu", {"A": B}),
    ("rms_norm.cu", {"A": B, "W": B, "KEEP": 2}), ("rms_norm.cu", {"A": F, "W": H, "KEEP": 8}),
    ("rope.cu", {"A": F}), ("sample.cu", {"A": F}), ("softmax.cu", {"A": H}),
    ("gemv.cu", {**PAIR, "A": B, "W": B, "O": B, "K": 2048}),
    ("gemv.cu", {**ROW, "A": F, "W": F, "O": F, "K": 5632, "DEPTH": 6, "WARPS": 8}),
    ("gemv.cu", {**ROW, "A": F, "W": F, "O": F, "K": 11008, "DEPTH": 16, "STAGED": 0}),
    ("gemv.cu", {**ROW, "A": B, "W": F, "O": F, "K": 896, "DEPTH": 7, "STAGED": 0}),
    ("gemv.cu", {**ROW, "ROWS": 4, "DEPTH": 4, "A": H, "W": H, "O": F, "K": 896}),
    *(("gemv.cu", {**PAIR, "A": a, "W": w, "G": w, "O": a, "K": k, "NORM": 1}) for a, w, k in (
        (F, F, 2048), (B, B, 4096), (F, H, 896))),
    ("quantized_gemv.cu", {**PAIR, **CODES, "A": F, "B": F, "O": F, "K": 2048, "DEPTH": 4,
                           "NORM": 1, "G": B}),
    ("quantized_gemv.cu", {**PAIR, **CODES, "A": B, "B": B, "O": B, "K": 4096, "DEPTH": 4,
                           "BITS": 4, "ZEROS": 1, "NORM": 1, "G": B}),
    ("quantized_gemv.cu", {**PAIR, **CODES, "A": F, "B": F, "O": F, "K": 2048, "DEPTH": 4}),
    ("quantized_gemv.cu", {**ROW, **CODES, "A": B, "B": B, "O": B, "K": 8192, "BITS": 4,
                           "GROUP": 128, "ZEROS": 1}),
    ("quantized_gemv.cu", {**ROW, **CODES, "A": F, "B": F, "O": F, "K": 11008, "DEPTH": 14,
                           "ZEROS": 1, "STAGED": 0}),
    *(("block_gemv.cu", {**ROW, **BLOCKS[kind], "A": a, "B": a, "O": a, "K": k, "DEPTH": depth,
                         "WARPS": 8, "STAGED": int(k < 5632)}) for a, k, kind, depth in (
        (F, 2048, "q4_k", 2), (B, 8192, "q6_k", 6), (H, 896, "q5_0", 1), (F, 5632, "q5_k", 6))),
    *((file, {**BLOCKS[kind], "A": a, "B": a, "O": a, "BLOCKED": 1, "ALIGNED": 1, **more})
      for file, a, kind, more in (
        ("gemv_few.cu", B, "q4_k", {"TOKENS": 8}), ("gemv_few.cu", F, "q6_k", {"TOKENS": 16}),
        ("gemm.cu", F, "q5_k", TILE), ("gemm.cu", H, "q6_k", TILE))),
    *(("lookup.cu", {"O": o, "BLOCKED": 1, "ALIGNED": 1, **BLOCKS[kind]}) for o, kind in (
        (F, "q4_k"), (B, "q6_k"), (H, "q5_0"))),
    ("lookup.cu", {"O": F, "BITS": 8, "ALIGNED": 1}),
    ("lookup.cu", {"O": B, "BITS": 4, "ALIGNED": 0}),
    ("gemv_few.cu", {"A": F, "W": B, "B": B, "O": F, "BITS": 0, "ALIGNED": 1, "TOKENS": 16}),
    ("gemv_few.cu", {"A": B, "B": B, "O": B, "BITS": 4, "ALIGNED": 0, "TOKENS": 2}),
    *(("gemm.cu", {**TILE, "A": a, "W": w, "B": w, "O": F, "BITS": 0, "ALIGNED": whole,
                   "TILE_T": t}) for a, w, whole, t in (
        (F, F, 1, 128), (F, B, 1, 64), (F, F, 1, 32), (H, F, 0, 128))),
    ("gemm.cu", {**TILE, "A": F, "B": F, "O": F, "BITS": 8, "ALIGNED": 1}),
    *(("gemm_mma.cu", {**MMA, "A": a, "B": a, "O": o, "GATED": gated, "TILE_T": t, "TILE_N": n})
      for a, o, gated, t, n in ((B, B, 0, 128, 128), (H, H, 1, 128, 128), (B, F, 0, 64, 128),
                                (B, B, 1, 64, 64))),
    ("gemm_mma.cu", {**MMA, "A": H, "B": H, "O": F, "BITS": 4, "ZEROS": 1, "TILE_T": 64}),
    *(("attention.cu", {**ONE, "A": a, "C": c, "CODES": int(c == "i8"), "SIZE": d, "LANES": lanes,
                        "HEADS": 2}) for a, c, d, lanes in (
        (B, B, 64, 8), (F, F, 128, 16), (H, "i8", 80, 16), (F, B, 33, 8), (F, "i8", 128, 16))),
    *(("attention_tiled.cu", {"A": F, "C": c, "CODES": int(c == "i8"), "SIZE": d, "BLOCK": 16})
      for c, d in ((F, 64), ("i8", 24))),
    *(("attention_mma.cu", {"A": a, "C": c, "CODES": int(c == "i8"), "SIZE": d, "BLOCK": 16})
      for a, c, d in ((B, B, 128), (B, B, 64), (H, H, 80), (H, "i8", 64))),
]
FIRST = list({file: (file, defines) for file, defines in reversed(CASES)}.values())


def _id(case):
    file, defines = case
    return file.removesuffix(".cu") + "-" + "_".join(
        f"{k}{v}" for k, v in defines.items()
        if k in ("A", "W", "C", "K", "SIZE", "BITS", "NORM", "PIECE", "TILE_T", "TILE_N", "GATED"))


def _spilled(report):
    return max((int(n) for n in re.findall(r"(\d+) bytes spill stores", report)), default=0)


def test_every_source_is_covered():
    assert {file for file, _ in CASES} == {p.name for p in compiler.sources.folder.glob("*.cu")}


@pytest.mark.skipif(NVRTC is None, reason="needs pip install cuda-bindings nvidia-cuda-nvrtc")
@pytest.mark.parametrize("case", CASES, ids=map(_id, CASES))
def test_nvrtc_compiles_without_spills(case):
    """sm_89 has sm_80's registers and no source asks for it: one case a source compiles for it."""
    for target in TARGETS:
        if target == "sm_89" and case not in FIRST:
            continue
        code, report = compiler.sources.compile(*case, target, NVRTC)
        assert code
        assert _spilled(report) <= ALLOWED_SPILL, (target, report)


@pytest.mark.skipif(NVCC is None, reason="needs nvcc, of the CUDA toolkit")
@pytest.mark.parametrize("case", FIRST, ids=map(_id, FIRST))
def test_nvcc_compiles_without_spills(case, tmp_path):
    """The oldest target and the newest: NVRTC has compiled for those between."""
    file, defines = case
    targets = TARGETS[::len(TARGETS) - 1]
    kinds = [f"-gencode=arch=compute_{t[3:]},code={t}" for t in targets]
    done = subprocess.run(["nvcc", "-fatbin", *kinds, "-std=c++17", "-Xptxas=-v", "-Werror",
                           "all-warnings", *(f"-D{k}={v}" for k, v in defines.items()), "-o",
                           str(tmp_path / "out"), str(compiler.sources.folder / file)],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Compiling entry function") % len(targets) == 0
    assert _spilled(done.stderr) <= ALLOWED_SPILL, done.stderr


@pytest.mark.skipif(NVRTC is None, reason="needs pip install cuda-bindings nvidia-cuda-nvrtc")
def test_machine_code_is_cached_and_the_key_covers_flags_target_and_compiler(tmp_path, monkeypatch):
    calls = []

    def count(*args):
        calls.append(args)
        return NVRTC.run(*args)
    tool, newer = (cuda.Compiler(NVRTC.version + more, count) for more in ("", ", newer"))
    sources = cuda.Sources("cuda_pycuda", compiler.sources.folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = sources.cubin("advance.cu", {}, "sm_90a", tool)
    assert sources.cubin("advance.cu", {}, "sm_90a", tool) == first
    assert sources.cubin("advance.cu", {"OTHER": 1}, "sm_90a", tool)
    assert sources.cubin("advance.cu", {}, "sm_80", tool) != first
    assert sources.cubin("advance.cu", {}, "sm_90a", newer) == first
    kept = sources.cache
    assert len(calls) == len(list(kept.folder.iterdir())) == kept.misses == 4 and kept.hits == 1


@pytest.mark.parametrize("tool", [t for t in (NVRTC, NVCC) if t] or [None])
def test_a_source_that_does_not_compile_is_named(tool):
    from core.errors import BackendError
    if tool is None:
        pytest.skip("needs nvcc or NVRTC")
    with pytest.raises(BackendError, match=r"elementwise\.cu does not compile"):
        compiler.sources.compile("elementwise.cu", {}, "sm_90a", tool)
