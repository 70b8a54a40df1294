"""cpu_numba on lesser machines, and its whole models."""

import os
import subprocess
import sys

import numpy as np
import pytest

import models
from core import run_op
from core.errors import BackendError
from core.installed.registry import Registry

numba = pytest.importorskip("numba", reason="cpu_numba needs Numba: pip install numba")

CHAIN = "cpu_numba,cpu_numpy"


def test_as_on_a_machine_with_avx2():
    """Compile AVX2's tile, its masks by way of memory and its integer products for it here."""
    import llvmlite.binding
    wide = ("avx512", "avx10", "amx", "avxvnni", "evex512")
    has = [f for f, there in llvmlite.binding.get_host_cpu_features().items()
           if there and not f.startswith(wide)]
    if "avx2" not in has:
        pytest.skip("this machine has no AVX2")
    done = subprocess.run(
        [sys.executable, "-m", "models.conform", "-q", "--backend", "cpu_numba",
         "--op", "linear,quantized_linear,block_linear",
         "--dtype", "float32.W=bf16,bfloat16.Q=i8,bfloat16.Q=i4x2,float32.B=bf16", "-k", "matches"],
        env=os.environ | {"NUMBA_CPU_NAME": "haswell",
                          "NUMBA_CPU_FEATURES": ",".join(f"+{f}" for f in has)},
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "4 cells pass, 0 have no kernel, 0 other" in done.stdout


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("quantize", [None, "int8", "int4"])
def test_models_in_sixteen_bits(dtype, quantize):
    """Prefill and decode must agree with the reference, node by node."""
    from core.verify.crosscheck import CrossCheck
    registry = Registry()
    with models.load("stories-llama3", backend=CHAIN, dtype=dtype, quantize=quantize) as model:
        check = CrossCheck(registry, ["reference"])
        with model.session.observed(check):
            model.session.prefill(list(range(1, 15)))
            model.session.step()
        assert check.tally.ok, [str(r) for r in check.tally.rows if r.wrong]


@pytest.mark.parametrize("tokens", [2, 21])
@pytest.mark.parametrize(("bits", "group"), [(8, 33), (8, 48), (4, 2), (4, 34), (4, 96)])
def test_odd_groups(tokens, bits, group):
    rng = np.random.default_rng(1)
    rows, columns = 70, 1101
    groups, width = -(-columns // group), columns if bits == 8 else -(-columns // 2)
    codes = (rng.integers(-127, 128, (rows, width), np.int8) if bits == 8
             else rng.integers(0, 256, (rows, width), np.uint8))
    scales = rng.random((rows, groups), np.float32)
    x = rng.standard_normal((tokens, columns), np.float32)
    for zeros in (None, (7.3 + rng.random((rows, groups))).astype(np.float32)):
        args = (x, codes, scales, zeros, None)
        ours, exact = (run_op("quantized_linear", *args, backend=b, bits=bits, group_size=group)
                       for b in ("cpu_numba", "reference"))
        np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-5 * np.abs(exact).max())


@pytest.mark.parametrize(("columns", "group"), [(128, 32), (896, 64), (640, 256), (384, 128)])
def test_nibbles_of_one_token(columns, group):
    """Try one token over whole 64-byte pieces; the last group may be short; rows beyond a
    multiple."""
    rng = np.random.default_rng(3)
    groups = -(-columns // group)
    codes = rng.integers(0, 256, (37, columns // 2), np.uint8)
    scales = rng.random((37, groups), np.float32)
    x = rng.standard_normal((1, columns), np.float32)
    for zeros in (None, (7.3 + rng.random((37, groups))).astype(np.float32)):
        ours, exact = (run_op("quantized_linear", x, codes, scales, zeros, None, backend=b, bits=4,
                              group_size=group) for b in ("cpu_numba", "reference"))
        np.testing.assert_allclose(ours, exact, rtol=0, atol=2e-6 * np.abs(exact).max())


@pytest.mark.parametrize("backend", ["cpu_numba", "cpu_numpy"])
def test_threads(backend, monkeypatch):
    """They are set and stated; more than there are, or no way to set them, is told."""
    if backend == "cpu_numpy":
        pytest.importorskip("threadpoolctl", reason="it sets the threads of BLAS")
    import importlib
    spec = Registry().specs[backend]
    module, _, name = spec.target.partition(":")
    make = getattr(importlib.import_module(module), name)
    before = numba.get_num_threads()
    try:
        assert "threads" in spec.options
        assert "1 threads" in make(threads=1).describe()
    finally:
        make(threads=before)
    if backend == "cpu_numba":
        with pytest.raises(BackendError, match="--threads 9999: Numba starts at most"):
            make(threads=9999)
    else:
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec",
                            lambda n, *rest: None if n == "threadpoolctl" else find(n, *rest))
        with pytest.raises(BackendError, match="pip install threadpoolctl"):
            make(threads=1)


def test_odd_group_of_nibbles_is_refused():
    from core.errors import NoKernelError
    codes, scales = np.zeros((4, 5), np.uint8), np.ones((4, 4), np.float32)
    with pytest.raises(NoKernelError, match="even group size, got 3"):
        run_op("quantized_linear", np.ones((1, 10), np.float32), codes, scales, backend="cpu_numba",
               bits=4, group_size=3)


def test_long_contexts_split_and_tile():
    """Decode over several stretches; prefill over several tiles and key blocks; many groups."""
    rng = np.random.default_rng(2)
    for tokens, past, heads, kv_heads, size in ((1, 700, 6, 2, 64), (300, 100, 32, 4, 48)):
        k, v = rng.standard_normal((2, past + tokens, kv_heads, size), np.float32)
        q = rng.standard_normal((tokens, heads, size), np.float32)
        ours, exact = (run_op("attention", q, k, v, past=past, scale=size**-0.5, backend=b)
                       for b in ("cpu_numba", "reference"))
        np.testing.assert_allclose(ours, exact, rtol=0, atol=2e-6)


def test_a_strided_array_is_refused():
    from cpu_numba.compiling import bound
    from cpu_numba.kernels.compiled import rows
    x = np.zeros((4, 6), np.float32)[:, ::2]
    with pytest.raises(ValueError, match="contiguous"):
        bound(rows.add, x, x, x, 1, 12)
