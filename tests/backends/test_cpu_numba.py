"""Tests cpu_numba beyond the conformance suite: light to list, nothing compiled on the token
path."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

import models
from core import run_op
from core.errors import BackendError
from core.installed.registry import Registry

CHAIN = "cpu_numba,cpu_numpy"
PROMPT = "Once upon a time there was a"


@pytest.fixture
def compilations():
    """Record the functions that Numba compiles during the test, as they come."""
    from numba.core import event
    seen = []

    class Listener(event.Listener):
        def on_start(self, event):
            seen.append(event.data["dispatcher"])

        def on_end(self, event):
            pass

    with event.install_listener("numba:compile", Listener()):
        yield seen


def test_listing_backends_does_not_import_numba():
    code = ("import sys; from core.installed.registry import Registry; Registry().specs; "
            "print(*sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"cpu_numba.plugin"} <= set(done.stdout.split())
    assert not {"numba", "llvmlite", "cpu_numba.backend"} & set(done.stdout.split())


def test_missing_numba_is_named_with_its_fix(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name, *rest: None if name == "numba" else find(name, *rest))
    with pytest.raises(BackendError, match=r"'numba' is missing; fix: pip install numba"):
        Registry().backend("cpu_numba")


@pytest.mark.parametrize("quantize", [None, "int8", "int4"])
@pytest.mark.parametrize("name", ["stories-llama2", "stories-llama3", "stories-qwen2"])
def test_same_tokens_as_numpy(name, quantize):
    with models.load(name, backend="cpu_numpy", quantize=quantize) as model:
        expected = model.generate(PROMPT, max_new_tokens=48).run().tokens
    with models.load(name, backend=CHAIN, quantize=quantize) as model:
        assert model.generate(PROMPT, max_new_tokens=48).run().tokens == expected
        used = {e.kernel for e in model.session.decoder.ledger.entries}
    assert {k for k in used if k.startswith("cpu_numpy")} <= {"cpu_numpy:argmax",
                                                             "cpu_numpy:advance"}


@pytest.mark.parametrize("kv_dtype", ["f16", "bf16", "i8"])
def test_cache_types(kv_dtype):
    tokens = []
    for backend in ("cpu_numpy", CHAIN):
        with models.load("stories-llama3", backend=backend, kv_dtype=kv_dtype) as model:
            tokens.append(model.generate(PROMPT, max_new_tokens=32).run().tokens)
    assert tokens[0] == tokens[1]


def test_nothing_compiles_on_the_token_path(compilations):
    with models.load("stories-llama2", backend=CHAIN) as model:
        model.session.prefill([1, 2, 3])
        compilations.clear()
        for _ in range(5):
            model.session.step()
        assert compilations == []


def test_machine_code_has_names_of_its_own():
    """Two functions of one name and type, cached by two processes, would be linked for each other
    in a third: a product in int8 was wrong by 12 times its size."""
    import gc

    from numba.core.dispatcher import Dispatcher

    import cpu_numba.kernels  # noqa: F401 - declares them all
    bodies = {}  # name -> what it is the name of: code, and what that closes over
    for d in gc.get_objects():
        if issubclass(type(d), Dispatcher) and d.py_func.__module__.startswith("cpu_numba."):
            f = d.py_func
            held = tuple(cell.cell_contents for cell in f.__closure__ or ())
            bodies.setdefault((f.__module__, f.__qualname__), set()).add((f.__code__, held))
    assert len(bodies) > 80
    assert [name for name, found in bodies.items() if len(found) > 1] == []


@pytest.mark.parametrize("tokens", [1, 3, 8, 9, 15])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_remainder_of_a_product(tokens, dtype):
    """Cover tokens in twelves, eights and fours; rows in sixteens and beyond a panel; columns past
    it."""
    rng = np.random.default_rng(0)
    import ml_dtypes
    kind = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    for rows, columns in ((1, 1), (67, 17), (130, 1043)):
        x = rng.standard_normal((tokens, columns), np.float32)
        w = rng.standard_normal((rows, columns), np.float32).astype(kind)
        bias = rng.standard_normal(rows, np.float32).astype(kind)
        out = run_op("linear", x, w, bias, backend="cpu_numba", out_dtype="f32")
        expected = x.astype(np.float64) @ w.astype(np.float64).T + bias.astype(np.float64)
        np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("tokens", "paired"), [
    (1, True), (8, True), (9, True), (14, True), (25, True), (9, False), (25, False)])
def test_sixteen_bit_activations(tokens, paired, monkeypatch):
    """Try blocks of 12, 8 and 4 tokens in pairs of bf16, where the machine has the instruction, and
    in float32, whichever of them is faster here."""
    import ml_dtypes

    from cpu_numba.kernels.compiled import pairs
    monkeypatch.setattr(pairs, "FASTER", paired and pairs.PAIRED)
    rng = np.random.default_rng(4)
    for kind in (ml_dtypes.bfloat16, np.float16):
        for rows, columns in ((1, 1), (67, 17), (130, 1043)):
            x, w = (rng.standard_normal((n, columns), np.float32).astype(kind)
                    for n in (tokens, rows))
            out = run_op("linear", x, w, backend="cpu_numba", out_dtype="f32")
            expected = x.astype(np.float64) @ w.astype(np.float64).T
            np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("tokens", [1, 3, 20])
@pytest.mark.parametrize(("bits", "group", "columns"), [
    (8, 33, 500), (8, 48, 1101), (4, 34, 1101), (4, 32, 2176), (4, 128, 640)])
def test_codes_with_bf16_activations(tokens, bits, group, columns):
    """Odd groups cannot be pairs; columns beyond a stretch; zeros that are no whole numbers."""
    import ml_dtypes
    rng = np.random.default_rng(5)
    rows, groups = 70, -(-columns // group)
    codes = (rng.integers(-127, 128, (rows, columns), np.int8) if bits == 8
             else rng.integers(0, 256, (rows, -(-columns // 2)), np.uint8))
    scales = rng.random((rows, groups), np.float32)
    x = rng.standard_normal((tokens, columns), np.float32).astype(ml_dtypes.bfloat16)
    for zeros in (None, (7.3 + rng.random((rows, groups))).astype(np.float32)):
        ours, exact = (run_op("quantized_linear", x, codes, scales, zeros, None, backend=b,
                              bits=bits, group_size=group, out_dtype="f32")
                       for b in ("cpu_numba", "reference"))
        np.testing.assert_allclose(ours, exact, rtol=0, atol=2e-6 * np.abs(exact).max())
