"""Tests that tokenizer_config.json is read as by transformers 5: its spaces and its class."""

import json
import shutil

import pytest
from format_models import random_model
from tokenizer_files import check_equal, through_folder, through_gguf

from models.checkpoints.base import SHIPPED
from models.json_reader import ConfigReader
from models.tokenizers.base import SentencePieceTokenizer, load_tokenizer

TEXTS = ("Once upon a time", "<s>x</s> y", "x</s>y", "two  spaces")


def folder_of(name, to, **keys):
    """Copy a shipped tokenizer with other keys in tokenizer_config.json; `json` changes
    tokenizer.json."""
    change = keys.pop("json", {})
    for file in ("config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
        if (SHIPPED / name / file).exists():
            shutil.copy(SHIPPED / name / file, to / file)
    for file, more in (("tokenizer_config.json", keys), ("tokenizer.json", change)):
        if more:
            data = json.loads((to / file).read_text(encoding="utf-8"))
            (to / file).write_text(json.dumps({**data, **more}), encoding="utf-8")
    return to


@pytest.mark.parametrize("asked", [True, False, None])
def test_qwen2s_class_reads_add_prefix_space(asked, tmp_path):
    """transformers 5.24: [220, 358, ...] with it, else [358, ...]."""
    made = load_tokenizer(folder_of("stories-qwen2", tmp_path, add_prefix_space=asked))
    assert made.encode("Once upon a time") == [*([220] if asked else []), 358, 359, 257, 346]
    assert not made.notes


def test_another_class_does_not(tmp_path):
    plain = load_tokenizer(SHIPPED / "stories-llama3")
    made = load_tokenizer(folder_of("stories-llama3", tmp_path, add_prefix_space=True))
    assert [made.encode(t) for t in TEXTS] == [plain.encode(t) for t in TEXTS]
    assert any("add_prefix_space is true, and tokenizer.json says otherwise" in n
               for n in made.notes)


@pytest.mark.parametrize(("name", "keys"), [
    ("stories-qwen2", {"json": {"normalizer": {"type": "Lowercase"}}}),
    ("stories-qwen2", {"json": {"model": {
        "type": "WordLevel", "vocab": {"a": 0, "<unk>": 1}, "unk_token": "<unk>"},
        "added_tokens": []}}),
    ("stories-llama3", {"tokenizer_class": "Qwen2Tokenizer"})],
    ids=["normalizer", "model", "class"])
def test_a_class_that_tokenizer_json_contradicts_is_noted(name, keys, tmp_path):
    made = load_tokenizer(folder_of(name, tmp_path, **keys))
    assert any("tokenizer_class is Qwen2's, and tokenizer.json prepares" in n for n in made.notes)


@pytest.mark.parametrize(("name", "file"), [("stories-llama2", "tokenizer.model"),
                                            ("stories-llama3", "tokenizer.json")])
def test_a_class_of_another_family_is_noted(name, file, tmp_path):
    """transformers 5.24 gives other ids for this class with either file."""
    made = load_tokenizer(folder_of(name, tmp_path, tokenizer_class="CohereTokenizer"))
    assert any(f"is 'CohereTokenizer', which may split texts otherwise in transformers; {file} c"
               in n for n in made.notes)


@pytest.mark.parametrize("stated", [True, False], ids=["tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize("name", ["stories-llama2", "stories-qwen2"])
def test_a_token_that_is_named_is_special(name, stated, tmp_path):
    """transformers 5.24 hides BOS, EOS and the like, whatever the token's entry says."""
    plain = load_tokenizer(SHIPPED / name)
    eos = plain.token(plain.eos_id)
    entry = {"content": eos, "special": False, "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False}
    keys = {"added_tokens_decoder": {str(plain.eos_id): entry}} if stated else {}
    if name == "stories-qwen2" and not stated:
        data = json.loads((SHIPPED / name / "tokenizer.json").read_text(encoding="utf-8"))
        keys["json"] = {"added_tokens": [{**t, "special": False} for t in data["added_tokens"]]}
    made = load_tokenizer(folder_of(name, tmp_path, **keys))
    assert made.special_tokens[eos] == made.eos_id == plain.eos_id
    assert made.decode(plain.encode(f"Once{eos}x")) == "Oncex"


@pytest.mark.parametrize("legacy", [True, False])
def test_sentencepiece_without_a_space_in_front(legacy, tmp_path):
    made = load_tokenizer(folder_of("stories-llama2", tmp_path, add_prefix_space=False,
                                    legacy=legacy))
    plain = load_tokenizer(SHIPPED / "stories-llama2")
    bos, *ids = made.encode("Once upon")
    assert ids == plain.encode_bare("Once upon") and bos == plain.bos_id
    for text in TEXTS:
        ids = made.encode(text, special=True)
        assert made.decode(ids) == text.replace("<s>", "").replace("</s>", "")


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("route", [through_gguf, through_folder])
def test_it_comes_back(route, legacy, tmp_path):
    pytest.importorskip("gguf", reason="GGUF tests need the extra: pip install '.[gguf]'")
    proto = random_model("llama2").tokenizer.processor.serialized_model_proto()
    origin = SentencePieceTokenizer(proto, ConfigReader(
        {"legacy": legacy, "add_prefix_space": False}, "made"), None)
    check_equal(route(origin, tmp_path), origin)
