"""Products of cpu_numba on AMX's tiles: their machine code runs here, emulated where the processor
has no AMX."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="cpu_numba needs Numba: pip install numba")

EMULATOR = Path(__file__).parents[1] / "support" / "amx.c"
SCRIPT = """
import ctypes, sys
import ml_dtypes, numpy as np
from cpu_numba import machine
emulator = ctypes.CDLL(sys.argv[1])
if machine.without_tiles():
    machine.without_tiles = lambda: None
    emulator.emulate()
native = not emulator.emulating()
from core import run_op
rng, half = np.random.default_rng(3), ml_dtypes.bfloat16
for tokens, rows, columns in ((9, 1, 1), (17, 67, 17), (33, 130, 1043), (70, 32, 64)):
    x, w, bias = (rng.standard_normal(shape, np.float32).astype(half)
                  for shape in ((tokens, columns), (rows, columns), rows))
    out = run_op("linear", x, w, bias, backend="cpu_numba", kernel="linear_tiles", out_dtype="f32")
    exact = x.astype(float) @ w.astype(float).T + bias.astype(float)
    np.testing.assert_allclose(out, exact, rtol=0, atol=1e-6 * np.abs(exact).max())
for tokens, rows, columns, group in ((9, 70, 1101, 32), (40, 33, 160, 64)):
    groups = -(-columns // group)
    codes = rng.integers(0, 256, (rows, -(-columns // 2)), np.uint8)
    scales = rng.random((rows, groups), np.float32)
    x = rng.standard_normal((tokens, columns), np.float32).astype(half)
    for zeros in (None, (7.3 + rng.random((rows, groups))).astype(np.float32)):
        out, exact = (run_op("quantized_linear", x, codes, scales, zeros, None, bits=4,
                             group_size=group, **how)
                      for how in ({"backend": "cpu_numba", "kernel": "quantized_tiles"},
                                  {"backend": "reference", "out_dtype": "f32"}))
        away = np.abs(out.astype(float) - exact)  # rounding to bf16 is half of it
        assert (away <= 2.0**-8 * np.abs(exact) + 2e-6 * np.abs(exact).max()).all(), away.max()
print(native or emulator.emulated())
"""


def test_products_on_tiles(tmp_path):
    """Cover tokens and rows beyond a tile and a block, columns beyond a step, and zeros."""
    import llvmlite.binding
    has = [f for f, there in llvmlite.binding.get_host_cpu_features().items() if there]
    if sys.platform != "linux" or not {"avx512bw", "avx512bf16"} <= set(has):
        pytest.skip("only AMX itself is emulated: this machine has no AVX-512 with bf16")
    compiler = shutil.which("cc") or pytest.skip("no C compiler for the emulator")
    library = tmp_path / "amx.so"
    subprocess.run([compiler, "-O2", "-march=native", "-ffp-contract=off", "-shared", "-fPIC",
                    str(EMULATOR), "-o", str(library), "-lm"], check=True)
    features = ",".join(f"+{f}" for f in {*has, "amx-tile", "amx-bf16"})
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(library)], capture_output=True, text=True, check=False,
        env=os.environ | {"NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "True" or int(done.stdout) > 1000


def test_what_a_machine_lacks_is_said(monkeypatch):
    from cpu_numba import machine
    monkeypatch.setattr(machine, "has", lambda feature: not feature.startswith("amx"))
    ask = machine.without_tiles.__wrapped__
    assert ask().startswith("needs a processor with amx-tile and amx-bf16, which ")
    monkeypatch.setattr(machine, "has", lambda feature: True)
    call, request, _ = machine._ASK_FOR_TILES
    monkeypatch.setattr(machine, "_ASK_FOR_TILES", (call, request, 63))  # there is no such state
    assert ask().startswith(("needs AMX's tiles, and the system refuses: ", "needs Linux"))
