"""A real file: SmolLM2-135M-Instruct in Q4_1, beside llama.cpp's ids and transformers' text.

The ids in support/smollm2_ids.json are llama.cpp's, made from the texts beside them by

    python tools/judges/llama_side.py ids SmolLM2-135M-Instruct.Q4_1.gguf TEXTS.json IDS.json
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import smollm2
from format_models import REGISTRY
from tokenizer_files import check_equal

import models
from models.checkpoints.base import read_checkpoint

IDS = Path(smollm2.__file__).with_name("smollm2_ids.json")
PROMPT = [{"role": "user", "content": "Name three colours."}]
COUNT = 24


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return smollm2.find(tmp_path_factory.mktemp("smollm2"))


@pytest.fixture(scope="module")
def exported(path, tmp_path_factory):
    """Export the file to a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("exported") / "hf"
    subprocess.run([sys.executable, "-m", "models.export", "--model", str(path), "--to", "hf",
                    "--dtype", "f32", "--out", str(folder)], check=True, capture_output=True)
    return folder


def check_ids(tokenizer):
    judged = json.loads(IDS.read_text(encoding="utf-8"))
    assert len(judged) == 300
    for text, ids in judged:
        assert tokenizer.encode(text, special=True) == ids, text


def test_ids_are_llama_cpps(path):
    check_ids(read_checkpoint(path, REGISTRY).tokenizer)


def test_ids_after_an_export_and_back(path, exported):
    folder = read_checkpoint(exported, REGISTRY).tokenizer
    check_ids(folder)
    check_equal(folder, read_checkpoint(path, REGISTRY).tokenizer)


def greedy(path, backend):
    """Return ids of the prompt and of the answer."""
    with models.load(path, backend=backend, dtype="f32", max_context=128) as model:
        text = model.tokenizer.template.render(PROMPT)
        ids = model.tokenizer.encode(text, special=True)
        return ids, model.generate(ids, max_new_tokens=COUNT).run().tokens


@pytest.mark.parametrize("backend", ["cpu_numpy", "cpu_numba,cpu_numpy"])
def test_greedy_text_is_transformers(path, exported, backend):
    torch = pytest.importorskip("torch", reason="needs the extra parity")
    transformers = pytest.importorskip("transformers", reason="needs the extra parity")
    ids, tokens = greedy(path, backend)
    model = transformers.AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    theirs = model.generate(torch.tensor([ids]), max_new_tokens=COUNT, do_sample=False,
                            repetition_penalty=1.0)[0, len(ids):].tolist()
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    assert tokenizer.apply_chat_template(PROMPT, add_generation_prompt=True,
                                         return_dict=False) == ids
    assert theirs[:len(tokens)] == tokens and len(tokens) > 4


def test_it_chats(path):
    done = subprocess.run([sys.executable, "-m", "models.run", "--model", str(path), "--chat",
                           "--backend", "cpu_numpy", "--max-new-tokens", "8", "--max-context",
                           "128"], input="Name three colours.\n", capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr[-2000:]
