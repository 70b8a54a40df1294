"""Compiles every CUDA source of cuda_cupy to machine code, without spills, without a GPU."""

import re

import pytest

compiler = pytest.importorskip("cuda_cupy.compiler", reason="needs ./backends/cuda_cupy")
pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="needs pip install 'cupy-cuda13x[ctk]'")

TARGETS = ("sm_80", "sm_89", "sm_90a", "sm_100")
HOPPER = ("sm_90a",)  # with instructions that no other GPU has
ANY = 2**31 - 1  # queries of a sequence
ALLOWED_SPILL = 0  # bytes of local memory that ptxas may store registers to, for any kernel
B, H, F = "bf16", "f16", "float"
STREAM = {"ROWS": 1, "STEPS": 1, "KSPLIT": 1, "WARPS": 8, "MAX_DEPTH": 16}
PAIRS = {**STREAM, "ROWS": 2, "NORM": 0}
ONE_QUERY = {"BLOCK": 16, "QUANTIZED": 0, "LANES": 8, "WARPS": 16}
CODES = {"GROUP": 64, "ROWS": 1, "KSPLIT": 1, "WARPS": 8, "ZEROS": 0, "MAX_DEPTH": 12,
         "B": F, "O": F}

BLOCKS = {"q4_k": {"BITS": 4, "GROUP": 32, "BLOCK": 256, "SCALES": 1, "ZEROS": 1},
          "q5_k": {"BITS": 5, "GROUP": 32, "BLOCK": 256, "SCALES": 1, "ZEROS": 1},
          "q6_k": {"BITS": 6, "GROUP": 16, "BLOCK": 256, "SCALES": 1, "ZEROS": 0},
          "q5_0": {"BITS": 5, "GROUP": 32, "BLOCK": 32, "SCALES": 0, "ZEROS": 0},
          "q2_k": {"BITS": 4, "GROUP": 16, "BLOCK": 256, "SCALES": 1, "ZEROS": 1}}
SPREAD = {"WARPS": 8, "B": F, "O": F, "ROWS": 1, "KSPLIT": 1, "MAX_DEPTH": 6}

# source, defines: the shapes of TinyLlama, Llama-3.2-1B and Qwen2.5-0.5B, and odd ones
CASES = [
    ("elementwise.cu", {"W": B, "O": F}), ("elementwise.cu", {"W": F, "O": H}), ("step.cu", {}),
    ("bandwidth.cu", {}),
    ("norm.cu", {"A": F, "W": B, "MINE": 2}), ("norm.cu", {"A": H, "W": H, "MINE": 0}),
    ("softmax.cu", {"A": B}),
    ("rope.cu", {"A": F}), ("rope.cu", {"A": B}), ("cache.cu", {"A": B, "C": "i8", "QUANTIZED": 1}),
    ("cache.cu", {"A": F, "C": H, "QUANTIZED": 0}), ("argmax.cu", {"A": F}),
    ("sample.cu", {"A": F}), ("log_probs.cu", {"A": F}), ("log_probs.cu", {"A": B}),
    *(("adjust_logits.cu", {"A": a, "ALIGNED": n}) for a, n in ((F, 1), (B, 1), (H, 1), (F, 0))),
    *(("gemv.cu", {**STREAM, "A": t, "W": t, "O": t, "K": k}) for t, k in (
        (F, 2048), (F, 5632), (B, 2048), (B, 8192), (H, 896), (B, 4864))),
    ("gemv.cu", {**STREAM, "A": F, "W": B, "O": F, "K": 2048}),
    ("gemv.cu", {**STREAM, "A": B, "W": B, "O": F, "K": 896, "STEPS": 8}),
    ("gemv.cu", {**STREAM, "A": B, "W": B, "O": F, "K": 2048, "STEPS": 4}),
    ("gemv.cu", {**STREAM, "A": B, "W": B, "O": B, "K": 4864, "KSPLIT": 2}),
    ("gate_up.cu", {**PAIRS, "A": F, "W": F, "O": F, "K": 2048}),
    ("gate_up.cu", {**PAIRS, "A": B, "W": B, "O": B, "K": 2048, "NORM": 1, "G": B, "STEPS": 2}),
    ("gate_up.cu", {**PAIRS, "A": H, "W": H, "O": H, "K": 896, "NORM": 1, "G": H}),
    *(("skinny.cu", {"A": a, "O": o, "K": k, "SPLIT": 16 if k > 4096 else 8, "TILES": tiles,
                     "COLUMNS": columns, "DEPTH": 8 // tiles, "GATED": gated, "BF16": int(a == B)})
      for a, o, k, tiles, columns, gated in (
          (B, B, 2048, 1, 1, 0), (B, F, 2048, 2, 1, 0), (B, B, 2048, 2, 1, 1),
          (B, F, 2048, 1, 2, 0), (B, B, 8192, 1, 2, 0), (H, H, 896, 1, 1, 1),
          (H, H, 8192, 1, 2, 1))),
    ("rows.cu", {"A": F, "W": B, "O": F, "ALIGNED": 1, "TOKENS": 16}),
    ("rows.cu", {"A": B, "W": F, "O": B, "ALIGNED": 0, "TOKENS": 2}),
    ("qgemv.cu", {**CODES, "A": F, "B": F, "O": F, "BITS": 8, "K": 2048}),
    ("qgemv.cu", {**CODES, "A": B, "B": B, "O": B, "BITS": 8, "K": 5632, "ZEROS": 1,
                  "KSPLIT": 2}),
    ("qgemv.cu", {**CODES, "A": H, "B": H, "O": H, "BITS": 4, "K": 8192, "GROUP": 128, "ZEROS": 1}),
    ("qgate_up.cu", {**CODES, "A": B, "G": B, "BITS": 8, "K": 2048, "ROWS": 4}),
    ("qgate_up.cu", {**CODES, "A": F, "G": F, "BITS": 4, "K": 2048, "ROWS": 2, "ZEROS": 1}),
    ("qrows.cu", {"A": F, "B": F, "O": F, "BITS": 4, "TOKENS": 16}),
    *(("qtiled.cu", {"A": a, "B": a, "O": o, "BITS": bits, "BF16": int(a != H), "ZEROS": zeros,
                     "ROWS": rows, "DEEP": 128 if rows == 16 else 64})
      for a, o, bits, zeros, rows in ((B, F, 8, 0, 128), (H, H, 4, 1, 128), (F, F, 8, 0, 64),
                                      (F, F, 4, 1, 64), (F, F, 4, 1, 16), (F, F, 8, 0, 16),
                                      (H, H, 8, 1, 16), (B, B, 4, 0, 16))),
    *(("block_gemv.cu", {**SPREAD, **BLOCKS[kind], "A": a, "K": k, **how}) for a, k, kind, how in (
        (F, 2048, "q4_k", {}), (B, 2048, "q4_k", {"ROWS": 2}), (H, 8192, "q6_k", {"ROWS": 2}),
        (F, 5632, "q6_k", {}), (B, 896, "q5_0", {"KSPLIT": 2}), (F, 14336, "q5_k", {"ROWS": 2}),
        (B, 2048, "q2_k", {"ROWS": 2}))),
    *(("qtiled.cu", {"A": a, "B": a, "O": o, "BF16": int(a != H), "ROWS": rows, "BLOCKED": 1,
                     "DEEP": 128 if rows == 16 else 64, **BLOCKS[kind]})
      for a, o, kind, rows in ((B, B, "q4_k", 128), (H, H, "q6_k", 128), (F, F, "q6_k", 64),
                               (F, F, "q5_k", 64), (F, F, "q2_k", 16), (B, F, "q5_0", 16))),
    *(("lookup.cu", {"O": o, "BITS": bits, "BLOCKED": 0}) for o, bits in ((F, 8), (B, 4))),
    *(("lookup.cu", {"O": o, "BLOCKED": 1, **BLOCKS[kind]}) for o, kind in (
        (F, "q4_k"), (B, "q6_k"), (H, "q5_0"))),
    ("tiled.cu", {"A": F, "W": B, "B": B, "O": F, "BITS": 0}),
    ("tiled.cu", {"A": B, "B": B, "O": B, "BITS": 8}),
    *(("attention.cu", {**ONE_QUERY, "A": a, "C": c, "QUANTIZED": int(c == "i8"), "SIZE": d,
                        "HEADS": n}) for a, c, d, n in (
        (F, F, 64, 2), (B, B, 64, 2), (H, "i8", 80, 1), (B, B, 128, 1), (F, B, 96, 1))),
    ("attention.cu", {**ONE_QUERY, "A": F, "C": F, "SIZE": 33, "LANES": 1, "HEADS": 1,
                      "WARPS": 8}),
    ("attention.cu", {**ONE_QUERY, "A": F, "C": "i8", "SIZE": 8, "HEADS": 1, "QUANTIZED": 1}),
    *(("attention_grouped.cu", {"A": a, "C": c, "QUANTIZED": int(c == "i8"), "SIZE": d,
                                "BLOCK": block, "BF16": int(a == B), "WARPS": warps,
                                "ALONE": alone})
      for a, c, d, block, warps, alone in (
          (B, B, 64, 16, 4, 0), (H, H, 128, 16, 4, 0), (B, B, 128, 16, 8, 1),
          (B, "i8", 64, 16, 8, 1), (H, "i8", 128, 16, 4, 0), (B, B, 96, 16, 4, 0),
          (H, "i8", 32, 3, 8, 0))),
    *(("attention_tiled.cu", {"A": a, "C": c, "QUANTIZED": int(c == "i8"), "SIZE": d, "BLOCK": 16,
                              "LEAST": least, "MOST": most, "BF16": int(a == B)})
      for a, c, d, least, most in ((B, B, 64, 2, 63), (H, H, 80, 1, ANY), (B, "i8", 96, 2, ANY),
                                   (H, H, 128, 1, ANY))),
    *(("attention_hopper.cu", {"A": a, "C": a, "QUANTIZED": 0, "SIZE": d, "BLOCK": 16,
                               "LEAST": least, "MOST": ANY,
                               "BF16": int(a == B), "GROUPS": groups, "STAGES": stages,
                               "REGISTERS": registers, "IDLE_REGISTERS": idle})
      for a, d, groups, stages, registers, idle, least in (
          (B, 64, 3, 4, 160, 32, 64), (H, 128, 2, 3, 240, 24, 1), (B, 128, 2, 3, 240, 24, 64))),
    *(("products_hopper.cu", {"A": a, "O": o, "WIDE": int(o == F), "COLUMNS": columns,
                              "STAGES": 4 if columns == 256 else 6, "GATED": gated,
                              "BF16": int(a == B)})
      for a, o, columns, gated in ((B, B, 256, 0), (B, F, 128, 0), (B, B, 256, 1), (H, H, 256, 1),
                                   (H, H, 128, 0))),
    *(("stream_hopper.cu", {"A": a, "O": o, "COLUMNS": columns, "STAGES": stages, "SPLIT": split,
                            "GATED": gated, "BF16": int(a == B)})
      for a, o, columns, stages, split, gated in ((B, B, 16, 5, 8, 0), (B, F, 32, 5, 1, 0),
                                                  (H, H, 64, 4, 1, 1), (B, B, 64, 4, 2, 1))),
]


def _id(case):
    file, defines = case
    shown = ("A", "W", "C", "K", "SIZE", "BITS", "ROWS", "ALIGNED")
    return file.removesuffix(".cu") + "-" + "_".join(f"{k}{v}" for k, v in defines.items()
                                                     if k in shown)


def test_every_source_is_covered():
    sources = {p.name for p in compiler.sources.folder.glob("*.cu")}
    assert {file for file, _ in CASES} == sources


def _targets(case):
    """sm_89 has sm_80's registers and no source asks for it: one case a source compiles for it."""
    if "hopper" in case[0]:
        return HOPPER
    first = next(c for c in CASES if c[0] == case[0])
    return [t for t in TARGETS if t != "sm_89" or case is first]


@pytest.mark.parametrize(("case", "target"), [
    pytest.param(c, t, id=f"{_id(c)}-{t}") for c in CASES for t in _targets(c)])
def test_compiles_without_spills(case, target):
    code, report = compiler.sources.compile(*case, target, compiler.nvrtc())
    assert code
    spilled = [int(n) for n in re.findall(r"(\d+) bytes spill stores", report)]
    assert max(spilled, default=0) <= ALLOWED_SPILL, report
    assert "serialized" not in report  # ptxas's word for products that wait for each other
