"""pytorch_model.bin, and archives that PyTorch did not write."""

import io
import os
import pickle
import sys
import zipfile

import numpy as np
import pytest
from format_models import REGISTRY, logits
from good_files import folder_of
from safetensors.numpy import load_file

from core.errors import CheckpointError
from models import run
from models.checkpoints.base import read_checkpoint


@pytest.fixture
def torch_folder(folder):
    torch = pytest.importorskip("torch", reason="needs the extra: pip install '.[meta]'")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    made = {n: torch.from_numpy(a) for n, a in tensors.items()}

    def save(**others):
        torch.save({**made, **others}, folder / "pytorch_model.bin")
        return folder
    return save


def test_pytorch_model_bin(torch_folder, tmp_path):
    torch = pytest.importorskip("torch", reason="needs the extra: pip install '.[meta]'")
    path = torch_folder(**{"model.position_ids": torch.arange(4)})
    (tmp_path / "same").mkdir()
    assert np.array_equal(logits(path, 16), logits(folder_of(tmp_path / "same")[0], 16))
    assert "position_ids" in read_checkpoint(path, REGISTRY).notes[0]


def test_pytorch_model_bin_without_torch(torch_folder, capsys, monkeypatch):
    path = torch_folder()
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run.main(["--model", str(path), "--prompt", "a"]) == 2
    assert "pip install torch" in capsys.readouterr().err


class Runs:
    """Calls a function where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_are_not_unpickled(zipped, torch_folder, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="needs the extra: pip install '.[meta]'")
    monkeypatch.chdir(tmp_path)
    path = torch_folder() / "pytorch_model.bin"
    torch.save({"x": Runs()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"it holds [a-z]+\.mkdir, which is no tensor and was "
                       "not run; take the model in safetensors"):
        read_checkpoint(path.parent, REGISTRY)
    path.write_bytes(pickle.dumps(Runs()))  # warns of its protocol, in PyTorch's words
    with pytest.raises(CheckpointError, match=r"its pickle is not one of tensors; it is trunc"):
        read_checkpoint(path.parent, REGISTRY)
    assert not (tmp_path / "ran").exists()


def test_tensors_one_level_down(torch_folder):
    path = torch_folder(optimizer={"step": 1})
    with pytest.raises(CheckpointError, match=r"holds 'optimizer', which is a dict, .*state_dict"):
        read_checkpoint(path, REGISTRY)


def test_a_stride_of_zero(torch_folder):
    torch = pytest.importorskip("torch", reason="needs the extra: pip install '.[meta]'")
    path = torch_folder(x=torch.zeros(1).expand(100_000, 100_000))
    with pytest.raises(CheckpointError, match="more elements than the file holds"):
        read_checkpoint(path, REGISTRY)


def test_compressed_members(torch_folder):
    """PyTorch maps members as they lie: compressed ones were read as weights."""
    path = torch_folder() / "pytorch_model.bin"
    data = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(
            path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(CheckpointError, match=r"is compressed.*zip -0"):
        read_checkpoint(path.parent, REGISTRY)
