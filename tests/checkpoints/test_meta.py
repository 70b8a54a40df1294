"""Meta's folders: tests one .pth and several, both tokenizers, equal logits, damage, no PyTorch."""

import json
import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from format_models import REGISTRY, difference, logits, random_model

from core.errors import CheckpointError, ConfigError, OptionError, TokenizerError
from models import export
from models.checkpoints.base import read_checkpoint
from models.checkpoints.meta.params import read_params
from models.json_reader import ConfigReader
from models.tokenizers.build import build_tokenizer, vocabulary_of
from models.tokenizers.tiktoken_ranks import read_tiktoken

torch = pytest.importorskip("torch", reason="reading .pth needs the extra: pip install '.[meta]'")
from meta_files import ranks  # noqa: E402 - needs torch
from meta_files import write_meta as write  # noqa: E402


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shards", [1, 2])
def test_llama2(shards, dtype, tmp_path):
    """Keep rows in pairs: exact with a source in pairs, rounding of sums apart from one in
    halves."""
    model = random_model(dtype=dtype, interleaved=True)
    back = read_checkpoint(write(tmp_path / "m", model, shards), REGISTRY)
    assert back.interleaved and back.eos_ids == (2,)
    assert back.config.data["intermediate_size"] == 96
    assert back.config.data["max_position_embeddings"] == 4096
    assert all(np.array_equal(back.arrays[n], a) and back.arrays[n].dtype == dtype
               for n, a in model.arrays.items())
    assert np.array_equal(logits(back), logits(model))
    halves = random_model(dtype=dtype)
    back = read_checkpoint(write(tmp_path / "m", halves, shards), REGISTRY)
    assert difference(logits(back), logits(halves)) < 2e-6


@pytest.mark.parametrize("split", [0, 1], ids=["vocabulary", "columns"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_llama3(tied, split, tmp_path):
    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    model = random_model("llama3", tied=tied, rope_scaling=scaling, dtype=ml_dtypes.bfloat16)
    folder = write(tmp_path / "m", model, 2, vocabulary_split=split, rope_theta=500000.0,
                   use_scaled_rope=True, rope_scaling_factor=32.0, vocab_size=640)
    back = read_checkpoint(folder, REGISTRY)
    assert back.config.data["tie_word_embeddings"] is tied
    assert back.config.data["max_position_embeddings"] == 131072
    assert difference(logits(back), logits(model)) < 2e-6
    plain = logits(replace(model, config=ConfigReader(
        {**model.config.data, "rope_scaling": None}, "plain")))
    assert difference(logits(back), plain) > 1e-4  # the scaling counts
    assert back.tokenizer.bos_id == 384 and back.eos_ids == (385, 392, 393)


def test_tiktoken_file(tmp_path):
    """Expect the ids of the vocabulary that it was made from."""
    tokenizer = random_model("llama3").tokenizer
    (tmp_path / "tokenizer.model").write_bytes(ranks(tokenizer))
    v = read_tiktoken(tmp_path / "tokenizer.model")
    built, whole = build_tokenizer(v, "x"), vocabulary_of(tokenizer, "x")
    held = set(v.tokens)
    same = build_tokenizer(type(v)(**{**vars(v), "merges": [
        m for m in whole.merges if {*m, "".join(m)} <= held]}), "x")
    for text in ("Once upon a time", " there was\n\n a 🦙 of 1234567", "Äpfel\t!!", ""):
        assert built.encode(text) == same.encode(text)
        assert built.decode(built.encode(text)) == text
    assert v.tokens[384 + 4] == "<|finetune_right_pad_id|>"
    assert v.tokens[-1] == "<|reserved_special_token_247|>" and len(v.tokens) == 640
    assert built.encode("<|eot_id|>", special=True) == [393]


@pytest.mark.parametrize("damage, complaint", [
    (lambda data: data[:100], "line"), (lambda data: data + b"\n", "line 385 is"),
    (lambda data: data.replace(b" 7\n", b" 8\n"), "line 8 is .* and rank 7"),
    (lambda data: b"".join(data.splitlines(True)[:200]), "no token for byte"),
    (lambda data: data.splitlines(True)[0] + b"\xff\xfe 1\n", "line 2 is")])
def test_damaged_tiktoken_file(damage, complaint, tmp_path):
    file = tmp_path / "tokenizer.model"
    file.write_bytes(damage(ranks(random_model("llama3").tokenizer)))
    with pytest.raises(TokenizerError, match=complaint):
        read_tiktoken(file)


PUBLISHED = {  # params.json of published models, the embedding's rows, what config.json says
    "Llama-2-7B": ({"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32,
                    "norm_eps": 1e-5, "vocab_size": -1}, 32000, 11008, 32, None),
    "Llama-2-70B": ({"dim": 8192, "multiple_of": 4096, "ffn_dim_multiplier": 1.3, "n_heads": 64,
                     "n_kv_heads": 8, "n_layers": 80, "norm_eps": 1e-5, "vocab_size": -1},
                    32000, 28672, 8, None),
    "Llama-3-8B": ({"dim": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8,
                    "vocab_size": 128256, "multiple_of": 1024, "ffn_dim_multiplier": 1.3,
                    "norm_eps": 1e-5, "rope_theta": 500000.0}, 128256, 14336, 8, None),
    "Llama-3.1-70B": ({"dim": 8192, "ffn_dim_multiplier": 1.3, "multiple_of": 4096, "n_heads": 64,
                       "n_kv_heads": 8, "n_layers": 80, "norm_eps": 1e-5, "rope_theta": 500000.0,
                       "use_scaled_rope": True, "vocab_size": 128256}, 128256, 28672, 8, 8.0),
    "Llama-3.2-1B": ({"dim": 2048, "ffn_dim_multiplier": 1.5, "multiple_of": 256, "n_heads": 32,
                      "n_kv_heads": 8, "n_layers": 16, "norm_eps": 1e-5, "rope_theta": 500000.0,
                      "use_scaled_rope": True, "vocab_size": 128256}, 128256, 8192, 8, 32.0),
    "Llama-3.2-3B": ({"dim": 3072, "ffn_dim_multiplier": 1.0, "multiple_of": 256, "n_heads": 24,
                      "n_kv_heads": 8, "n_layers": 28, "norm_eps": 1e-5, "rope_theta": 500000.0,
                      "use_scaled_rope": True, "vocab_size": 128256}, 128256, 8192, 8, 32.0)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_params(name, tmp_path):
    params, rows, hidden, kv_heads, factor = PUBLISHED[name]
    (tmp_path / "params.json").write_text(json.dumps(params))
    config = read_params(tmp_path / "params.json", rows, False).data
    assert (config["intermediate_size"], config["num_key_value_heads"]) == (hidden, kv_heads)
    assert config["vocab_size"] == rows and config["rope_parameters"].get("factor") == factor


def test_run_and_export(run_cli, tmp_path, capsys):
    """Use the layout of a fetched Llama-2: the tokenizer is beside the folder. Exported folders are
    complete."""
    write(tmp_path / "m", random_model("llama3"), rope_theta=5e5)
    shutil.move(tmp_path / "m" / "tokenizer.model", tmp_path / "tokenizer.model")
    done = run_cli("--model", str(tmp_path / "m"), "--max-new-tokens", "3", "--json", code=0)
    assert len(json.loads(done.stdout)["tokens"]) == 3
    assert export.main(["--model", str(tmp_path / "m"), "--to", "hf", "--out",
                        str(tmp_path / "hf")]) == 0
    back, source = (read_checkpoint(tmp_path / f, REGISTRY) for f in ("hf", "m"))
    assert not back.interleaved and set(back.eos_ids) == set(source.eos_ids)
    assert difference(logits(back), logits(source)) < 2e-6
    assert back.tokenizer.encode("Once upon") == source.tokenizer.encode("Once upon")


def test_one_file_is_mapped(tmp_path):
    """A single .pth is not copied: changing its bytes changes what the arrays hold."""
    model = random_model(layers=1)
    folder = write(tmp_path / "m", model)
    back = read_checkpoint(folder, REGISTRY)
    data = bytearray((folder / "consolidated.00.pth").read_bytes())
    at = data.index(model.arrays["lm_head.weight"].tobytes())
    with (folder / "consolidated.00.pth").open("r+b") as file:
        file.seek(at)
        file.write(np.float32(123).tobytes())
    assert back.arrays["lm_head.weight"][0, 0] == 123


def edit(folder, part=0, **tensors):
    path = folder / f"consolidated.{part:02}.pth"
    loaded = torch.load(path)
    loaded.update({n.replace("__", "."): t for n, t in tensors.items()})
    torch.save({n: t for n, t in loaded.items() if t is not None}, path)


def params(folder, **keys):
    path = folder / "params.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


DAMAGED = {
    "part missing": (lambda f: (f / "consolidated.00.pth").unlink(), CheckpointError,
                     "has consolidated.01.pth, expected consolidated.00.pth"),
    "tensor in one part": (lambda f: edit(f, 1, norm__weight=None), CheckpointError,
                           "do not belong together: only one of them holds model.norm.weight"),
    "norms differ": (lambda f: edit(f, 1, norm__weight=torch.zeros(64)), CheckpointError,
                     "is repeated in each file and differs"),
    "parts differ": (lambda f: edit(f, 1, output__weight=torch.zeros(9, 64)), CheckpointError,
                     "parts of lm_head.weight are"),
    "no embedding": (lambda f: [edit(f, i, tok_embeddings__weight=None) for i in (0, 1)],
                     CheckpointError, "tok_embeddings.weight is missing"),
    "strange tensor": (lambda f: edit(f, 0, layers__0__experts__weight=torch.zeros(1)),
                       CheckpointError, "layers.0.experts.weight belongs to no Llama text model"),
    "integers": (lambda f: edit(f, 0, norm__weight=torch.zeros(64, dtype=torch.int8)),
                 CheckpointError, "is torch.int8"),
    "a list": (lambda f: torch.save([1], f / "consolidated.00.pth"), CheckpointError,
               "holds a list, expected a dict of tensors"),
    "an object": (lambda f: torch.save({"a": re.compile("x")}, f / "consolidated.00.pth"),
                  CheckpointError, "cannot be read by torch.load"),
    "text": (lambda f: (f / "consolidated.00.pth").write_text("nothing"), CheckpointError,
             "cannot be read by torch.load"),
    "empty": (lambda f: (f / "consolidated.00.pth").write_text(""), CheckpointError,
              "cannot be read by torch.load"),
    "params no JSON": (lambda f: (f / "params.json").write_text("{"), ConfigError, "not valid"),
    "no dim": (lambda f: params(f, dim=None), ConfigError, "'dim' is missing"),
    "no heads": (lambda f: params(f, n_heads=-1), ConfigError, "n_heads is -1"),
    "vocabulary": (lambda f: params(f, vocab_size=7), ConfigError, "vocab_size is 7"),
    "multiplier": (lambda f: params(f, ffn_dim_multiplier=-1.0), ConfigError, "is -1.0"),
    "quantised": (lambda f: params(f, quantization_args={"group_size": 32}), ConfigError,
                  "quantization_args is"),
    "rope factor": (lambda f: params(f, use_scaled_rope=True), ConfigError,
                    "without rope_scaling_factor"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged(what, tmp_path):
    damage, kind, complaint = DAMAGED[what]
    folder = write(tmp_path / "m", random_model(layers=1), 2)
    damage(folder)
    with pytest.raises(kind, match=re.escape(complaint)):
        read_checkpoint(folder, REGISTRY)


def test_truncated_anywhere(tmp_path):
    folder = write(tmp_path / "m", random_model(layers=1, dim=32, hidden=48, heads=2, kv_heads=1))
    file, rng = folder / "consolidated.00.pth", random.Random(2)
    data = file.read_bytes()
    for size in (0, 1, 4, len(data) - 1, *(rng.randrange(len(data)) for _ in range(46))):
        file.write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=r"consolidated\.00\.pth cannot be read"):
            read_checkpoint(folder, REGISTRY)


def test_without_torch(monkeypatch, tmp_path):
    folder = write(tmp_path / "m", random_model(layers=1))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(OptionError, match=r"pip install 'kernelyard\[meta\]'"):
        read_checkpoint(folder, REGISTRY)


def test_torch_is_not_imported_for_other_formats():
    code = "import models, sys; models.load('stories-llama2').close(); assert 'torch' not in "
    subprocess.run([sys.executable, "-c", code + "sys.modules"], check=True, timeout=60)
