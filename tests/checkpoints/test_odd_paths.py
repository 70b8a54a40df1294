"""Tests what a path may lead to: no device, no FIFO, a folder, a file of one, a home folder."""

import io
import os
import socket
import subprocess
import sys

import pytest
from format_models import REGISTRY

from core.errors import CheckpointError, ConfigError, InputError
from core.plan.weights import no_progress
from models.__main__ import main as command
from models.checkpoints.base import read_checkpoint
from models.checkpoints.source import Source


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(path.parent)  # names of sockets are short
        made.bind(path.name)


def make_device(path):
    path.symlink_to("/dev/zero")


def make_huge(path):
    with path.open("wb") as file:
        file.truncate(1 << 40)


FILES = ("config.json", "model.safetensors", "tokenizer.model", "tokenizer.json",
         "tokenizer_config.json", "generation_config.json", "chat_template.jinja")


@pytest.mark.parametrize("make", [make_fifo, make_socket, make_device, make_huge])
@pytest.mark.parametrize("name", FILES)
def test_only_regular_files_of_a_model(name, make, folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        read_checkpoint(folder, REGISTRY)


@pytest.mark.parametrize("make", [make_fifo, make_socket, make_device])
def test_only_regular_files_by_name(make, tmp_path, monkeypatch):
    """Refuse it as a model, with and without a format, a lock, a capsule, requests and results: in
    a process, for it could wait for ever."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "x")
    (tmp_path / "requests").write_text("{}\n")
    for arguments in (["run", "--model", "x"], ["run", "--model", "gguf:x"],
                      ["run", "--model", "meta:x"], ["run", "--lock", "x"],
                      ["verify", "--replay", "x"], ["batch", "x"],
                      ["batch", "requests", "--output", "x"]):
        done = subprocess.run([sys.executable, "-m", f"models.{arguments[0]}", *arguments[1:]],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
        assert done.returncode == 2 and done.stderr.startswith("error: "), done.stderr


def test_an_index_that_never_ends(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="it is a device"):
        read_checkpoint(folder, REGISTRY)


def test_a_file_of_a_folder_names_the_folder(folder):
    for name in ("model.safetensors", "config.json"):
        with pytest.raises(CheckpointError, match=f"name the folder: {folder}"):
            read_checkpoint(folder / name, REGISTRY)


def test_home_is_expanded(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert read_checkpoint("~/m", REGISTRY).path == folder
    assert read_checkpoint("hf:~/m", REGISTRY).path == folder
    with pytest.raises(CheckpointError, match="no such home folder"):
        read_checkpoint("~nobody-of-this-name/m", REGISTRY)


@pytest.mark.parametrize("name", ["a\0b", "a" * 5000])
def test_names_that_no_system_takes(name):
    with pytest.raises(CheckpointError, match="cannot read"):
        read_checkpoint(name, REGISTRY)


NAMES = {"run --model": (), "run --lock": (), "run --chat --chat-template": (),
         "run --max-new-tokens 1 --capture *norm* --capsules": (), "plan --model": (),
         "verify --replay": (), "verify --save": ("--max-new-tokens", "1"), "bench --model": (),
         "verify --against": (), "export --to hf --model stories-llama2 --out": (),
         "export --to hf --out m --model": (), "serve --port 0 --api-key-file": (),
         "serve --port 0 --chat-template": (), "batch": (), "conform --calls": (),
         "conform --report": ("--op", "none")}


@pytest.mark.parametrize("option", NAMES)
def test_every_option_refuses_a_name_with_a_nul(option, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("Once"))
    try:
        code = command([*option.split(), "a\0b", *NAMES[option]])
    except SystemExit as left:  # argparse's
        code = left.code
    said = capfd.readouterr().err
    assert code == 2 and "a\\x00b" in said and "Traceback" not in said, said
    assert list(tmp_path.iterdir()) == []


def test_an_adapter(folder):
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"holds an adapter.*merge_and_unload"):
        read_checkpoint(folder, REGISTRY)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123\n"


@pytest.mark.parametrize("name", [*FILES, "pytorch_model.bin", "model.safetensors.index.json"])
def test_a_pointer_of_git_lfs(name, folder):
    if "model." in name and "tokenizer" not in name:
        (folder / "model.safetensors").unlink()
    if name.endswith(".bin"):
        pytest.importorskip("torch", reason="needs the extra: pip install '.[meta]'")
    (folder / name).write_bytes(POINTER)
    with pytest.raises(InputError, match=rf"{name}: git has left a pointer .*`git lfs pull`"):
        read_checkpoint(folder, REGISTRY)


@pytest.mark.parametrize("name", ["a.gguf", "model.bin", "kuiper-llama3:model.bin"])
def test_a_pointer_of_git_lfs_by_name(name, tmp_path):
    path = tmp_path / name.rpartition(":")[2]
    path.write_bytes(POINTER)
    with pytest.raises(CheckpointError, match="git lfs pull"):
        read_checkpoint(f"kuiper-llama3:{path}" if ":" in name else path, REGISTRY)


def test_a_folder_without_a_model_is_listed(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(tmp_path / "gone")
    with pytest.raises(CheckpointError, match=r"no weights: no model\.safetensors, .* it holds: "
                       r"config.*, model\.safetensors \(a link to a file that is not there\)"):
        read_checkpoint(folder, REGISTRY)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds no model: no config\.json, .* it holds: "):
        read_checkpoint(folder, REGISTRY)


def test_a_folder_with_one_gguf_file(folder, tmp_path):
    pytest.importorskip("gguf", reason="needs the extra: pip install '.[gguf]'")
    from models.checkpoints.gguf.writer import write_gguf
    source, place = Source(read_checkpoint(folder, REGISTRY), REGISTRY), tmp_path / "g"
    place.mkdir()
    write_gguf(source, place / "a.gguf", "f32", no_progress)
    (place / "a.gguf").rename(place / "a.GGUF")
    assert read_checkpoint(place, REGISTRY).path == place / "a.GGUF"
    (place / "a.GGUF").rename(place / "a.gguf")
    write_gguf(source, place / "b.gguf", "f32", no_progress)
    with pytest.raises(CheckpointError, match=r"2 GGUF files; name one of them: a\.gguf, b\.gguf"):
        read_checkpoint(place, REGISTRY)
