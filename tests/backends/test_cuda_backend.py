"""Tests the parts of cuda_cupy that need no GPU."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from core.installed.registry import default_registry
from core.ir.match import find_matches
from core.ir.op import OPS
from core.plugins.kernel import check_kernel
from core.runtime.step import DECODE, step_dims

pytest.importorskip("cuda_cupy", reason="needs ./backends/cuda_cupy")
HAS_GPU = default_registry().unavailable("cuda_cupy") is None


def test_naming_the_backend_imports_no_cupy():
    script = ("import sys; from core.installed.registry import default_registry; "
              "r = default_registry(); "
              "assert 'cuda_cupy' in r.specs, r.plugins.broken; assert 'cupy' not in sys.modules")
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.skipif(HAS_GPU, reason="this machine has a GPU")
def test_without_a_gpu_the_reason_and_the_fix_are_named():
    reason = default_registry().unavailable("cuda_cupy")
    assert "fix: " in reason or "pip install" in reason


def test_kernels_match_their_ops():
    from cuda_cupy.kernels import kernels
    default_registry()  # registers the fused ops
    for kernel in kernels:
        check_kernel(kernel)


def test_gate_and_up_reach_swiglu_as_float32_sums():
    """Rounded before swiglu they are rounded twice; tests/gpu/test_gpu_rounding.py measures it."""
    from core import bf16, f32
    from cuda_cupy.kernels import kernels
    parts, = (k for k in kernels if k.name == "gate_up_parts")
    call = SimpleNamespace(dims={"T": 8, "N": 33}, dtypes={"A": bf16})
    assert parts.workspace(call).dtype == f32


@pytest.mark.parametrize("bits, expected", [
    (None, {"add_norm_gate_up", "qkv_linear", "rope_kv_write"}),
    (8, {"add_norm_quantized_gate_up", "qkv_quantized", "rope_kv_write"})])
def test_fused_ops_are_found_in_every_layer(bits, expected):
    models = pytest.importorskip("models")
    quantize = None if bits is None else f"int{bits}"
    with models.load("stories-llama3", quantize=quantize, dtype="f32") as model:
        session = model.session
        graph = session._steps.build(DECODE).bind({**step_dims(4), "T": 1})
        layers = model.config.layers
        for name in expected:
            nodes = {n.name for m in find_matches(OPS[name], graph) for n in m.nodes}
            assert len({n.split(".")[1] for n in nodes}) == layers, name


@pytest.mark.parametrize("rows", [1, 33, 896, 2048, 8192, 151936])
@pytest.mark.parametrize("row_bytes", [512, 1792, 4096, 9728, 16384, 45056])
def test_spreads_give_every_row_to_a_team_of_warps(rows, row_bytes):
    from cuda_cupy import shapes
    for spread in (shapes.spread, shapes.spread_pairs, shapes.spread_codes,
                   shapes.spread_code_pairs):
        how = spread(rows, row_bytes)
        assert how.warps % how.split == 0
        assert how.warps <= 32
        assert how.rows_a_block == how.rows * how.steps * how.warps // how.split


def test_cubins_are_cached_and_the_key_covers_flags_and_target(tmp_path, monkeypatch):
    pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="needs cupy-cuda13x[ctk]")
    from core import cuda
    from cuda_cupy import compiler
    sources, nvrtc = cuda.Sources("cuda_cupy", compiler.sources.folder), compiler.nvrtc()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = sources.cubin("step.cu", {}, "sm_90a", nvrtc)
    assert sources.cubin("step.cu", {}, "sm_90a", nvrtc) == first
    assert sources.cubin("step.cu", {"OTHER": 1}, "sm_90a", nvrtc)
    assert sources.cubin("step.cu", {}, "sm_80", nvrtc) != first
    assert (sources.cache.hits, sources.cache.misses) == (1, 3)
    assert [len(list(folder.iterdir())) for folder in sources.cache.folders()] == [3]


def test_a_source_that_does_not_compile_is_named():
    pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="needs cupy-cuda13x[ctk]")
    from core.errors import BackendError
    from cuda_cupy import compiler
    with pytest.raises(BackendError, match=r"elementwise\.cu does not compile"):
        compiler.sources.compile("elementwise.cu", {}, "sm_90a", compiler.nvrtc())


@pytest.fixture
def two_gpus(monkeypatch):
    """Simulate CuPy's view of a machine with two GPUs, as far as opening one asks."""
    cupy = pytest.importorskip("cupy", reason="needs cupy-cuda13x")
    from cupy.cuda import runtime

    from cuda_cupy import device
    used = []
    found = {"driverGetVersion": lambda: runtime.runtimeGetVersion(), "getDeviceCount": lambda: 2,
             "getDeviceProperties": lambda i: {"major": 9, "minor": 0, "name": b"GPU %d" % i,
                                               "multiProcessorCount": 100 + i}}
    for name, answer in found.items():
        monkeypatch.setattr(runtime, name, answer)
    monkeypatch.setattr(cupy.cuda, "Device", lambda i: SimpleNamespace(use=lambda: used.append(i)))
    monkeypatch.setattr(cupy.cuda, "Stream", lambda **_: "a stream")
    monkeypatch.setattr(device.gpu, "_opened", None)
    return used


def test_the_gpu_is_chosen_once_a_process(two_gpus):
    from core.errors import OptionError
    from cuda_cupy.device import device, open_device
    with pytest.raises(OptionError, match="--device 2: the driver sees 2 GPUs"):
        open_device(2)
    assert open_device(1) is device() is open_device(1)
    assert (device().index, device().name, device().multiprocessors) == (1, "GPU 1", 101)
    assert two_gpus == [1]
    with pytest.raises(OptionError, match="computes on GPU 1 already"):
        open_device(0)
