"""Compares greedy tokens with llama.cpp's, from files of ours and of others."""

import pytest
from format_models import REGISTRY, random_model
from gguf_files import write_foreign

import models
from core.plan.weights import no_progress
from models.checkpoints.base import read_checkpoint, shipped_models
from models.checkpoints.gguf.writer import write_gguf
from models.checkpoints.source import Source

llama_cpp = pytest.importorskip("llama_cpp", reason="this lane needs llama-cpp-python")
COUNT = 48


def theirs(path, ids):
    model = llama_cpp.Llama(str(path), verbose=False, n_ctx=128, n_threads=2)
    try:
        out = []
        for token in model.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
            out.append(token)
            if len(out) == COUNT:
                return out, model.tokenize(b"Once upon a time", add_bos=True, special=True)
    finally:
        model.close()


def ours(path, ids):
    with models.load(path, dtype="f32") as model:
        generation = model.generate(ids, max_new_tokens=COUNT)
        generation.stop_ids = frozenset()
        return generation.run().tokens


@pytest.mark.parametrize("name", shipped_models())
def test_exported(name, tmp_path):
    source = Source(read_checkpoint(name, REGISTRY), REGISTRY)
    write_gguf(source, tmp_path / "m.gguf", "f32", no_progress)
    ids = source.checkpoint.tokenizer.encode("Once upon a time")
    tokens, their_ids = theirs(tmp_path / "m.gguf", ids)
    assert their_ids == ids
    assert tokens == ours(name, ids) == ours(tmp_path / "m.gguf", ids)


def test_foreign(tmp_path):
    """Use random weights, written with the gguf package alone."""
    model = random_model(dim=256, hidden=512, vocab=512)
    _, path = write_foreign(tmp_path / "m.gguf", model)
    ids = [1, 40, 77, 130, 250]
    assert theirs(path, ids)[0] == ours(path, ids)
