"""Models by id of the Hugging Face hub: from a cache, from a hub that a test plays, or refused."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from format_models import REGISTRY
from hub_cache import COMMIT, lay_out, serving

from core.errors import CheckpointError
from models.checkpoints.base import SHIPPED, read_checkpoint
from models.checkpoints.huggingface.hub import HubId, needed_files

STORY, QWEN, OTHER = SHIPPED / "stories-llama2", SHIPPED / "stories-qwen2", "f" * 40


@pytest.fixture
def python(tmp_path):
    """Run a module with a cache of its own: huggingface_hub reads its variables when imported."""
    def run(*arguments, code=0, **variables):
        env = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1",
               **variables}
        env = {key: value for key, value in env.items() if value is not None}
        done = subprocess.run([sys.executable, "-m", *arguments], env=env, cwd=tmp_path, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
        return done
    return run


def tokens(python, model, **variables):
    """Return the tokens that a model continues `Once` with, and standard error."""
    done = python("models.run", "--model", model, "--prompt", "Once", "--max-new-tokens", "8",
                  "--json", **variables)
    return json.loads(done.stdout)["tokens"], done.stderr


@pytest.mark.parametrize("text, repo, revision", [
    ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B", None), ("a/b@refs/pr/1", "a/b", "refs/pr/1"),
    (f"a/b_c@{OTHER}", "a/b_c", OTHER)])
def test_ids(text, repo, revision):
    assert HubId.parse(text) == HubId(repo, revision) and str(HubId.parse(text)) == text


@pytest.mark.parametrize("text", ["name", "a/b/c", "/a/b", "./a/b", "~/a", "a/b/", "a//b", "../a",
                                  "a/b@", "a b/c", "a/b.", "a/é", "a/b@x y", "a/b\n"])
def test_no_ids(text):
    assert HubId.parse(text) is None


def test_from_the_cache_offline(python, tmp_path):
    """By branch, pull request and commit: the right one of two, and nothing is shown as fetched."""
    lay_out(tmp_path / "cache", STORY, refs=("main",))
    lay_out(tmp_path / "cache", QWEN, commit=OTHER, refs=("refs/pr/1",))
    story, qwen = (tokens(python, name)[0] for name in ("stories-llama2", "stories-qwen2"))
    assert story != qwen
    for model, expected, commit in (
            ("Org/Name", story, COMMIT), ("Org/Name@main", story, COMMIT),
            (f"Org/Name@{COMMIT}", story, COMMIT), ("Org/Name@refs/pr/1", qwen, OTHER),
            (f"Org/Name@{OTHER}", qwen, OTHER), ("hf:Org/Name", story, COMMIT)):
        found, said = tokens(python, model)
        assert found == expected
        assert said == (f"note: {model.removeprefix('hf:')} is commit {commit} in "
                        f"{tmp_path / 'cache'}\n")
    done = python("models.run", "--model", "Org/Name", "--prompt", "Once", "--max-new-tokens", "2")
    assert "\nOrg/Name on cpu_numpy: weights" in done.stderr


def test_the_cache_below_hf_home(python, tmp_path):
    lay_out(tmp_path / "home" / "hub", STORY)
    found, said = tokens(python, "Org/Name", HF_HUB_CACHE=None, HF_HOME=str(tmp_path / "home"))
    assert found == tokens(python, "stories-llama2")[0] and f"in {tmp_path / 'home/hub'}" in said


def test_a_path_wins(python, tmp_path):
    lay_out(tmp_path / "cache", STORY)
    shutil.copytree(QWEN, tmp_path / "Org" / "Name")
    found, said = tokens(python, "Org/Name")
    assert found == tokens(python, "stories-qwen2")[0] and said == ""
    python("models.run", "--model", "./Org/Other", code=2)


def test_what_was_looked_for(python, tmp_path):
    lay_out(tmp_path / "cache", STORY)
    for model, said in (("Org/Other", "is not there"),
                        ("Org/Name@v9", "is there, but not this revision")):
        done = python("models.run", "--model", model, code=2)
        folder = tmp_path / "cache" / f"models--{model.partition('@')[0].replace('/', '--')}"
        assert done.stdout == "" and done.stderr == (
            f"error: no model at '{model}': expected a path, one of the shipped models "
            "stories-llama2, stories-llama3, stories-qwen2, or an id of the Hugging Face hub, "
            f"Org/Name or Org/Name@revision: {folder} {said}"
            f"{', or not whole' if '@' in model else ''}, and HF_HUB_OFFLINE is set, so nothing "
            "was fetched\n")
    with pytest.raises(CheckpointError, match=r"hub, Org/Name or Org/Name@revision$"):
        read_checkpoint("no-such", REGISTRY)


def test_fetched_from_a_hub(python, tmp_path):
    """Only what is read is fetched, once; then it is there without the hub, which is said."""
    files = {f.name: f.read_bytes() for f in STORY.iterdir()}
    extra = dict.fromkeys(("modeling_x.py", "model.gguf", "pytorch_model.bin", "onnx/model.onnx",
                           "onnx/model.safetensors", "README.md"), b"not wanted")
    expected = tokens(python, "stories-llama2")[0]
    with serving({**files, **extra}) as (address, asked):
        online = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"}
        found, said = tokens(python, "Org/Name", **online)
        assert found == expected and "Fetching 5 files" in said and f"commit {COMMIT}" in said
        (snapshot,) = (tmp_path / "cache").glob("models--*/snapshots/*")
        assert {p.name for p in snapshot.rglob("*")} == set(files)
        asked.clear()
        found, said = tokens(python, "Org/Name", **online)
        assert found == expected and len(said.splitlines()) == 1
        assert [a for a in asked if "Org" in a] == ["/api/models/Org/Name"]
        done = python("models.run", "--model", "Org/Other", code=2, **online)
        assert "models--Org--Other is not there, and the hub said RepositoryNotF" in done.stderr
    found, said = tokens(python, "Org/Name", **online)
    assert found == expected and "the hub could not be asked for Org/Name (" in said
    assert "the copy in the cache is used" in said


SMALL = ["config.json", "tokenizer.json", "tokenizer_config.json"]


@pytest.mark.parametrize("weights, beside", [
    (["model.safetensors"], ["pytorch_model.bin", "x.gguf", "a.py", "consolidated.safetensors"]),
    (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
      "model.safetensors.index.json"], ["pytorch_model.bin.index.json", "original/model.bin"]),
    (["pytorch_model.bin"], ["x.gguf", "training_args.bin", "optimizer.pt", "sub/config.json"]),
    (["additional_chat_templates/tool.jinja", "model.safetensors"], ["evil/tool.jinja"])])
def test_files_that_are_needed(weights, beside):
    assert sorted(needed_files([*SMALL, *beside, *weights])) == sorted([*SMALL, *weights])


def test_gguf_where_there_is_nothing_else():
    assert needed_files([*SMALL, "x.gguf", "README.md"]) == ["x.gguf"]
    parts = [f"x-0000{i}-of-00002.gguf" for i in (1, 2)]
    assert needed_files([*SMALL, *parts]) == parts
    with pytest.raises(CheckpointError, match=r"3 GGUF files"):
        needed_files([*SMALL, *parts, "y.gguf"])
    with pytest.raises(CheckpointError, match=r"2 GGUF files; fetch one of them .*: a.gguf, b.g"):
        needed_files([*SMALL, "b.gguf", "a.gguf"])
    with pytest.raises(CheckpointError, match=r"no weights in a known format, but config.json"):
        needed_files(SMALL)


def test_a_cache_that_is_no_folder(python, tmp_path):
    (tmp_path / "cache").write_text("")
    assert "cannot be listed: " in python("kernelyard", "models", code=2).stderr


def test_listing(python, tmp_path):
    """Shipped models, and those of the cache that can be read: whole, and of a known family."""
    cache = tmp_path / "cache"
    nothing = json.loads(python("kernelyard", "models", "--json").stdout)
    assert [m["name"] for m in nothing["shipped"]] == ["stories-llama2", "stories-llama3",
                                                       "stories-qwen2"] and nothing["hub"] == []
    lay_out(cache, STORY, refs=("main", "v1"))
    lay_out(cache, QWEN, commit=OTHER, refs=())
    for repo, edit in (("Org/Bert", {"architectures": ["BertModel"]}), ("Org/Odd", [])):
        (tmp_path / "x").mkdir(exist_ok=True)
        (tmp_path / "x/config.json").write_text(json.dumps(edit))
        (tmp_path / "x/model.safetensors").write_bytes(b"0")
        lay_out(cache, tmp_path / "x", repo)
    lay_out(cache, STORY, "Org/Part")
    next(cache.glob("models--Org--Part/snapshots/*/model.safetensors")).unlink()
    found = json.loads(python("kernelyard", "models", "--json").stdout)["hub"]
    size = sum(f.stat().st_size for f in STORY.iterdir())
    assert [(m["name"], m["family"]) for m in found] == [
        ("Org/Name", "LlamaForCausalLM"), ("Org/Name@v1", "LlamaForCausalLM"),
        (f"Org/Name@{OTHER}", "Qwen2ForCausalLM")]
    assert found[0]["nbytes"] == size and found[0]["path"].endswith(f"snapshots/{COMMIT}")
    table = python("models.models").stdout
    assert "stories-qwen2" in table and "Org/Name@v1" in table and "Bert" not in table
