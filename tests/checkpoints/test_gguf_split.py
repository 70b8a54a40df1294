"""GGUF models in several files, as the gguf package splits them."""

import numpy as np
import pytest
from format_models import REGISTRY, difference, logits, random_model
from gguf_files import write_foreign

from core.errors import CheckpointError
from models.checkpoints.base import read_checkpoint

SMALL = {"dim": 64, "hidden": 96, "layers": 1, "interleaved": False}
NAMES = [f"m-{i:05d}-of-00003.gguf" for i in (1, 2, 3)]


@pytest.fixture
def parts(tmp_path):
    """Write a model of twelve tensors in three files."""
    write_foreign(tmp_path / "m.gguf", random_model(**SMALL), split=5)
    files = sorted(tmp_path.iterdir())
    assert [f.name for f in files] == NAMES
    return files


@pytest.mark.parametrize("named", [0, 1, 2, "folder"])
def test_any_part_names_the_model(named, parts, tmp_path):
    _, whole = write_foreign(tmp_path / "whole.bin", random_model(**SMALL))
    path = tmp_path if named == "folder" else parts[named]
    checkpoint = read_checkpoint(path, REGISTRY)
    assert len(checkpoint.arrays) == 12
    assert np.array_equal(logits(checkpoint), logits(whole))
    assert checkpoint.tokenizer.encode("Once upon") == (
        read_checkpoint(whole, REGISTRY).tokenizer.encode("Once upon"))


def test_missing_parts_are_named(parts):
    parts[1].unlink()
    with pytest.raises(CheckpointError, match="part 3 of 3 of a model; beside it m-00002-of-00003"
                                              r".gguf is missing: fetch all"):
        read_checkpoint(parts[2], REGISTRY)
    parts[0].unlink()
    with pytest.raises(CheckpointError, match=r"m-00001-of-00003.gguf, m-00002-of-00003.gguf are "):
        read_checkpoint(parts[2], REGISTRY)


def test_a_part_under_another_name(parts):
    other = parts[0].rename(parts[0].with_name("model.gguf"))
    with pytest.raises(CheckpointError, match=r"ends in -00001-of-00003.gguf: give all parts"):
        read_checkpoint(other, REGISTRY)
    parts[1].rename(parts[0])  # the second under the first's name
    with pytest.raises(CheckpointError, match="part 2 of 3 of a model, expected a name that ends"):
        read_checkpoint(parts[0], REGISTRY)


def test_parts_of_different_models(parts, tmp_path):
    """Take the last part of a model with more layers: its tensors are others."""
    more = tmp_path / "more"
    more.mkdir()
    write_foreign(more / "m.gguf", random_model(**{**SMALL, "layers": 2}), split=8)
    (more / NAMES[2]).replace(parts[2])
    with pytest.raises(CheckpointError, match=r"split.tensors.count is 12, expected 15 in part 1"):
        read_checkpoint(parts[0], REGISTRY)


def test_a_tensor_in_two_parts(parts):
    """Rename a tensor to one of another part, whose name is as long."""
    old, new = b"blk.0.ffn_up.weight", b"blk.0.attn_v.weight"
    target, holder = (next(f for f in parts if name in f.read_bytes()) for name in (old, new))
    assert target != holder
    target.write_bytes(target.read_bytes().replace(old, new))
    with pytest.raises(CheckpointError, match=r"tensor blk.0.attn_v.weight is in an earlier part"):
        read_checkpoint(parts[0], REGISTRY)


def test_a_damaged_part_is_named(parts):
    parts[1].write_bytes(parts[1].read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"m-00002-of-00003.gguf: tensor .* truncated"):
        read_checkpoint(parts[0], REGISTRY)


@pytest.mark.parametrize("count", [-1, "three", 2.0])
def test_a_count_that_is_none(count, tmp_path):
    key = {"split.count": count if count != -1 else [1]}
    _, path = write_foreign(tmp_path / "m.gguf", random_model(**SMALL), **key)
    with pytest.raises(CheckpointError, match=r"split.count is .*, expected a count"):
        read_checkpoint(path, REGISTRY)


def test_one_part_of_one_is_a_whole_model(tmp_path):
    model = random_model(**SMALL)
    _, path = write_foreign(tmp_path / "m.gguf", model, **{"split.count": 1, "split.no": 0})
    assert difference(logits(path), logits(model)) < 2e-6


def test_a_folder_of_several_models_is_ambiguous(parts, tmp_path):
    write_foreign(tmp_path / "other.gguf", random_model(**SMALL))
    with pytest.raises(CheckpointError, match="holds 4 GGUF files; name one of them"):
        read_checkpoint(tmp_path, REGISTRY)
