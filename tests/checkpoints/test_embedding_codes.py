"""Embedding tables kept in codes: the logits of expanded ones, and the bytes that a plan says."""

from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points

import numpy as np
import pytest
from format_models import REGISTRY, random_model
from gguf_files import write_foreign

from core.installed.discovery import GROUP
from core.installed.loader import Plugins
from core.installed.registry import Registry
from core.plan.policy import KernelPolicy
from core.runtime.session import Session
from core.tensor.dtype import f32
from models import export
from models.architectures.tensors import EMBEDDING, HEAD
from models.checkpoints.base import read_checkpoint
from models.checkpoints.gguf.blocks import block_layout
from models.engine.load import settle_checkpoint
from models.engine.model import Model
from models.engine.options import LoadOptions
from models.engine.table import why_expanded
from models.plan import make_plan

IDS = [3, 0, 639, 5, 5, 77, 300, *range(20, 50)]


def no_lookup(kernel, call):
    return "not today" if kernel.op in ("quantized_embedding", "block_embedding") else None


def run(path, backend, dtype="f32", rules=()):
    """Return the model's weights, its logits and the notes."""
    checkpoint, options = read_checkpoint(path, REGISTRY), LoadOptions(backend, dtype=dtype)
    config = settle_checkpoint(checkpoint, options, REGISTRY)
    config = replace(config, policy=replace(config.policy, rules=rules))
    weights = config.weights()
    held = {name: array.nbytes for name, array in weights.arrays.items()}
    session = Session(config.graph, weights, config.policy, chunk=16, vocab_size=640,
                      max_context=64)
    with Model(config, session) as model:
        return held, model.logits(IDS), checkpoint.notes


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    made = {}

    def get(kind, tied=True):
        if (kind, tied) not in made:
            path = tmp_path_factory.mktemp("table") / "m.gguf"
            made[kind, tied] = write_foreign(path, random_model(
                dim=256, hidden=256, layers=1, interleaved=False, tied=tied), kind)[1]
        return made[kind, tied]
    return get


@pytest.mark.parametrize(("kind", "tied", "backend", "dtype"), [
    ("Q4_K", False, "cpu_numpy", "f32"), ("Q6_K", True, "cpu_numpy", "f32"),
    ("Q5_0", True, "cpu_numpy", "f32"), ("Q8_0", True, "cpu_numpy", "f32"),
    ("Q4_0", False, "cpu_numpy", "f32"), ("Q6_K", True, "cpu_numba,cpu_numpy", "f32"),
    ("Q8_0", True, "cpu_numba,cpu_numpy", "bf16")])
def test_logits_are_those_of_the_expanded_table(file, kind, tied, backend, dtype):
    """Hold one array of codes for both uses where the head is tied; bits are equal."""
    held, logits, notes = run(file(kind, tied), backend, dtype)
    assert EMBEDDING not in held and f"{EMBEDDING}.codes" in held
    assert (f"{HEAD}.codes" in held) is not tied and not any("embedding" in n for n in notes)
    wide, expected, notes = run(file(kind, tied), backend, dtype, (no_lookup,))
    assert wide[EMBEDDING] == 640 * 256 * (2 if dtype == "bf16" else 4)
    assert f"{HEAD}.codes" in wide and f"{EMBEDDING}.codes" not in wide
    (said,) = [n for n in notes if "embedding" in n]
    assert "the embedding was expanded, " in said and "not today" in said and " MiB " in said
    assert np.array_equal(logits, expected)


@pytest.mark.parametrize("backend", ["cpu_numpy", "cpu_numba,cpu_numpy"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_plan_counts_the_codes(file, tied, backend):
    path = file("Q6_K", tied)
    held, _, _ = run(path, backend)
    plan = make_plan(read_checkpoint(path, REGISTRY), LoadOptions(backend, dtype="f32"), REGISTRY)
    assert sum(w["bytes"] for w in plan["weights"]) == sum(held.values())
    assert sum(held.values()) < 1.05 * path.stat().st_size
    # projections of queries and outputs, of keys and values, of the MLP; embedding and head; norms
    matrices = 2 * 256 * 256 + 2 * 128 * 256 + 3 * 256 * 256 + (2 - tied) * 640 * 256
    assert plan["parameters"] == matrices + 3 * 256


@pytest.mark.parametrize(("kind", "tied"), [("Q6_K", True), ("Q8_0", False)])
def test_a_table_in_codes_is_exported(file, kind, tied, tmp_path):
    """Write what the codes mean, in float32 unless another dtype is named."""
    path, folder = file(kind, tied), tmp_path / "hf"
    assert export.main(["--model", str(path), "--to", "hf", "--out", str(folder)]) == 0
    held, logits, _ = run(folder, "cpu_numpy")
    assert held[EMBEDDING] == 640 * 256 * 4
    assert np.allclose(logits, run(path, "cpu_numpy")[1], rtol=0, atol=1e-5 * abs(logits).max())


def test_another_device_expands(file):
    """Refuse a look-up that would wait for another device's memory, with the reason."""
    registry = Registry(Plugins([*entry_points(group=GROUP),
                                 EntryPoint("toy", "toy_backend", GROUP)]))
    layout = block_layout("Q6_K")

    def why(*backends):
        return why_expanded(KernelPolicy(registry, backends), layout, (640, 256), f32, 512)
    assert why("toy", "cpu_numpy") == ("block_embedding: cpu_numpy:block_embedding: runs on cpu, "
                                       "activations are on toy:0")
    assert why("toy") == "block_embedding: toy has no kernel"
    assert why("cpu_numpy") is None and why("reference") is None
