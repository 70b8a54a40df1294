"""Loading a model of 80 million parameters makes nothing in memory but what must be made."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from format_models import REGISTRY, random_model

from core.plan.weights import no_progress
from models.checkpoints.source import Source
from models.checkpoints.targets import choose_target

TOOL = Path(__file__).parents[2] / "tools" / "load" / "measure.py"
OVERHEAD = 60  # MiB: the interpreter, NumPy, the tokenizer, KV cache and activations take about 40
pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(),
                                reason="reads Linux's /proc")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("load")
    for kind, dtype in (("f32", np.float32), ("bf16", ml_dtypes.bfloat16)):
        model = random_model(dim=1024, hidden=2816, layers=6, heads=16, kv_heads=16,
                             positions=512, dtype=dtype)
        source = Source(model, REGISTRY)
        for to in ("hf", "gguf"):
            if to == "gguf" and importlib.util.find_spec("gguf") is None:
                continue
            (folder / f"{to}-{kind}").mkdir()
            choose_target(to, source, kind, None, None).write(
                source, folder / f"{to}-{kind}", "m.gguf", no_progress)
    return folder


@pytest.mark.parametrize("to", ["hf", "gguf"])
@pytest.mark.parametrize("kind", ["f32", "bf16"])
def test_peak_memory(checkpoints, to, kind):
    path = checkpoints / f"{to}-{kind}"
    if not path.exists():
        pytest.skip("the gguf package is not installed")
    file = path if to == "hf" else path / "m.gguf"
    done = subprocess.run([sys.executable, TOOL, "--folder", ".", "--child", str(file)],
                          capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    size = next(path.glob("m*.safetensors" if to == "hf" else "*.gguf")).stat().st_size / 2**20
    widened = 0 if kind == "f32" else 2 * size
    assert found["weights_mib"] == pytest.approx(size, rel=0.02)
    assert found["peak_anon_mib"] <= widened + OVERHEAD
    assert found["peak_rss_mib"] <= size + widened + OVERHEAD + found["libraries_mib"]


def test_peak_memory_while_quantising(checkpoints):
    """Memory gives back what was read: the codes and one tensor are held, not the file."""
    path = checkpoints / "hf-bf16"
    done = subprocess.run([sys.executable, TOOL, "--folder", ".", "--child", str(path),
                           "--quantize", "int8"], capture_output=True, text=True, check=True)
    found, largest = json.loads(done.stdout), 1024 * 2816 * 2 / 2**20
    assert found["peak_file_mib"] <= found["libraries_mib"] + largest + OVERHEAD
    assert found["peak_rss_mib"] <= (found["weights_mib"] + found["libraries_mib"] + largest
                                     + OVERHEAD)
