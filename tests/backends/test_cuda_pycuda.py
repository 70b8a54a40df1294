"""Tests the parts of cuda_pycuda that need no GPU. Its kernels run here on the CPU, under a
stand-in for PyCUDA (tests/support/cuda_on_cpu): that checks arithmetic, indexing and the code that
launches them, not the GPU. tests/gpu_report.json says what has run on one."""

import json
import shutil
import subprocess
import sys

import pytest
from format_models import random_model

from core.installed.registry import default_registry

NEEDS_GCC = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, which compiles the "
                               "CUDA sources for the CPU here")
pytestmark = pytest.mark.skipif("cuda_pycuda" not in default_registry().specs,
                                reason="needs ./backends/cuda_pycuda")
#: Samples that take long on the CPU; each has a smaller one of the same kernel beside it.
SLOW = ("5632", "N2048", "T512", "prefill_512", "128256", "decode_long", "D2048", "V40000",
        "V32000", "S256", "R17_V64_n20", "4864", "8192", "11008", "32000", "32768", "4096", "2500",
        "2049", "2048", "131072", "151936", "group")


def test_naming_the_backend_imports_no_pycuda():
    script = ("import sys; from core.installed.registry import default_registry; "
              "r = default_registry(); "
              "assert 'cuda_pycuda' in r.specs, r.plugins.broken; "
              "assert not {'pycuda', 'cuda.bindings'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.skipif(default_registry().unavailable("cuda_pycuda") is None,
                    reason="this machine has a GPU")
def test_without_a_gpu_the_reason_and_the_fix_are_named():
    reason = default_registry().unavailable("cuda_pycuda")
    assert "fix: " in reason or "pip install" in reason


@NEEDS_GCC
def test_conformance_on_the_cpu(on_cpu):
    done = on_cpu("models.conform", "--backend", "cuda_pycuda", "-q", "-k",
                  "matches and not " + " and not ".join(SLOW), "--", "-rs")
    passed = int(done.stdout.split(" passed")[0].split()[-1])
    assert passed > 350, done.stdout[-500:]


@NEEDS_GCC
@pytest.mark.parametrize("model, options", [
    ("stories-llama2", ["--dtype", "f32"]),
    ("stories-qwen2", ["--dtype", "f32", "--quantize", "int8"])])
def test_a_model_gives_the_same_tokens_as_on_numpy(on_cpu, model, options, run_cli):
    args = ["--model", model, *options, "--prompt", "Once upon a time, " * 6, "--json",
            "--max-new-tokens", "12"]
    ours = json.loads(on_cpu("models.run", "--backend", "cuda_pycuda", *args).stdout)
    theirs = json.loads(run_cli("--backend", "cpu_numpy", *args, code=0).stdout)
    assert ours["stats"]["backends"] == ["cuda_pycuda"]
    assert ours["tokens"] == theirs["tokens"]


@NEEDS_GCC
def test_a_file_in_blocks_keeps_its_embedding_in_codes(on_cpu, run_cli, tmp_path):
    files = pytest.importorskip("gguf_files")
    path = tmp_path / "m.gguf"
    files.write_foreign(path, random_model(dim=256, hidden=256, layers=1, interleaved=False,
                                           tied=True),
                        lambda name: "F32" if "norm" in name else "Q6_K" if "embd" in name
                        else "Q4_K")
    args = ["--model", str(path), "--prompt-ids", "5,77,300", "--json", "--max-new-tokens", "3",
            "--dtype", "f32"]
    done = on_cpu("models.run", "--backend", "cuda_pycuda", *args)
    theirs = json.loads(run_cli("--backend", "cpu_numpy", *args, code=0).stdout)
    assert json.loads(done.stdout)["tokens"] == theirs["tokens"]
    assert "kept quantised: 1 Q6_K, 7 Q4_K" in done.stderr and "expanded" not in done.stderr


@NEEDS_GCC
@pytest.mark.parametrize("ending, code", [("pass", 0), ("raise SystemExit(3)", 3),
                                          ("raise ValueError('x')", 1),
                                          ("raise KeyboardInterrupt", -2)])
def test_the_context_is_popped_however_the_process_ends(on_cpu, ending, code):
    done = on_cpu(code=code, script="from cuda_on_cpu.driver import use; import pathlib; "
                  "use(pathlib.Path('exit'));"
                  "from core.installed.registry import default_registry\n"
                  "default_registry().backend('cuda_pycuda')\n" + ending)
    assert "context stack" not in done.stderr


GUEST = """
import ctypes, pathlib
import numpy as np
from cuda_on_cpu.device import Event, Stream
from cuda_on_cpu.driver import use
use(pathlib.Path("guest"))
from core import Backend, BackendSpec, KernelSet
from cuda_pycuda.device import gpu
from core.installed.registry import default_registry
import models
from core.installed.registry import Registry

class Guest(Backend):
    name = "guest"
    def __init__(self):
        self.allocator = default_registry().backend("cuda_pycuda").allocator
        with gpu:
            self.queue = Stream()
        self.stream = self.queue.handle
    def native(self, tensor):
        kind = ctypes.c_float * tensor.size
        return np.frombuffer(kind.from_address(tensor.pointer), np.float32).reshape(tensor.shape)
    def after(self, other):
        with gpu:
            event, theirs = Event(), Stream.streams[other.stream]
        def wait():
            event.record(theirs)
            self.queue.wait_for(event)
        return wait

kernels = KernelSet("guest")
launched = []

@kernels.implements("swiglu", dtypes={"A": "f32"})
def swiglu(gate, up, out):
    def compute():
        launched.append(1)
        out[...] = gate / (1 + np.exp(-gate)) * up
    return lambda: Guest.put(compute)

registry = default_registry()
guest = Guest()
Guest.put = guest.queue.put
registry.specs["guest"] = BackendSpec("guest", "cuda", "none:none", "a guest on the device")
registry.opened["guest"] = guest
registry._kernels["guest"] = {"swiglu": list(kernels)}
registry.sources.update({k: "test" for k in kernels})
"""


@NEEDS_GCC
def test_another_backend_of_the_device_takes_part_in_order(on_cpu):
    """Its work is on a stream of its own: without waiting, either would read what is not there."""
    done = on_cpu(script=GUEST + """
import json
def tokens(**options):
    with models.load("stories-llama2", dtype="f32", **options) as model:
        found = model.generate("Once upon a time", max_new_tokens=8).run().tokens
        return found, [p.captured for p in model.session.plans]
alone, captured = tokens(backend="cuda_pycuda")
mixed, _ = tokens(backend="cuda_pycuda", kernels=["swiglu=guest"])
assert launched and mixed == alone, (mixed, alone)
assert any(captured)
copies = []
with models.load("stories-llama2", dtype="f32", backend="cuda_pycuda",
                 kernels=["swiglu=guest"]) as model:
    assert not model.session.decoder.captured
    assert not any(s.notes for s in model.session.decoder.bindings)  # no copy between the two
print("same")
""")
    assert "same" in done.stdout


