"""The small files of a folder: what each says of the ids, held to transformers where it is
installed."""

import json
import shutil

import pytest
from format_models import random_model
from tokenizer_files import WORDS, entry, json_of, mixtures

from core.errors import TokenizerError
from models.checkpoints.base import SHIPPED
from models.tokenizers.base import NoTokenizer, load_tokenizer

LLAMA = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "bos_token": "<s>",
         "eos_token": "</s>", "unk_token": "<unk>"}
CHAT = {"<|im_start|>": 512, "<|im_end|>": 513, "foo bar": 514}
DECODER = {"512": entry(512, "<|im_start|>"), "513": entry(513, "<|im_end|>", rstrip=True),
           "514": entry(514, "<x>", special=False)}
PIECES = random_model("llama2").tokenizer.processor
FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}


def without_id(entries):
    return {i: {k: v for k, v in e.items() if k != "id"} for i, e in entries.items()}


def folder_of(path, *, config=None, special=None, added=None, template=None, tokenizer_json=None):
    """A model folder without weights: tokenizer.model, or `tokenizer_json`, and small files."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 512}))
    if tokenizer_json is None:
        shutil.copyfile(SHIPPED / "stories-llama2" / "tokenizer.model", path / "tokenizer.model")
    else:
        (path / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    for name, data in (("tokenizer_config.json", config), ("special_tokens_map.json", special),
                       ("added_tokens.json", added)):
        if data is not None:
            (path / name).write_text(json.dumps(data))
    if template is not None:
        (path / "chat_template.jinja").write_text(template)
    return path


FOLDERS = {
    "added_tokens.json": dict(config=LLAMA, added=CHAT),
    "legacy false": dict(config={**LLAMA, "legacy": False}, added=CHAT),
    "legacy true": dict(config={**LLAMA, "legacy": True}, added=CHAT),
    "added_tokens_decoder": dict(config={**LLAMA, "added_tokens_decoder": without_id(DECODER)}),
    "special_tokens_map": dict(config=LLAMA, added=CHAT, special={
        "eos_token": "<|im_end|>", "pad_token": {"content": "[PAD]", "special": True}}),
    "only special_tokens_map": dict(
        config={"tokenizer_class": "LlamaTokenizer", "add_bos_token": True},
        special={"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
    "add_eos_token": dict(config={**LLAMA, "add_eos_token": True}),
    "no bos": dict(config={**LLAMA, "add_bos_token": False}),
    "split_special_tokens": dict(config={**LLAMA, "split_special_tokens": True}, added=CHAT),
}
JSON = json_of("stories-llama3", [entry(None, "<s>"), entry(None, "</s>")])
JSON_FOLDERS = {
    "truncation": dict(config=FAST, tokenizer_json=json_of(
        "stories-llama3", [entry(None, "<s>")], truncation={
            "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0})),
    "padding": dict(config=FAST, tokenizer_json=json_of(
        "stories-llama3", [entry(None, "<s>")], padding={
            "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<s>"})),
    "added_tokens.json": dict(config=FAST, tokenizer_json=JSON, added={"<x>": 637, "a b": 638}),
    "added_tokens_decoder": dict(tokenizer_json=JSON, config={
        **FAST, "added_tokens_decoder": without_id({"637": entry(637, "<x>", lstrip=True)})}),
    "named only": dict(config={**FAST, "eos_token": "<|end|>"}, tokenizer_json=JSON),
    "split_special_tokens": dict(config={**FAST, "split_special_tokens": True},
                                 tokenizer_json=JSON),
    "add_bos_token": dict(config={"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True,
                                  "bos_token": "<s>", "eos_token": "</s>"}, tokenizer_json=JSON),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_like_transformers(name, tmp_path):
    """Texts without double spaces and without a space at the start of a part: there transformers 5
    departs from SentencePiece, whose ids these models were trained with."""
    pytest.importorskip("google.protobuf", reason="transformers reads tokenizer.model with it")
    folder = folder_of(tmp_path / "m", **FOLDERS[name])
    added = [t.text for t in load_tokenizer(folder).added.values()]
    compare(folder, lambda text: "  " not in text and not text.startswith(" ") and not any(
        f"{token} " in text for token in added))


@pytest.mark.parametrize("name", JSON_FOLDERS)
def test_json_like_transformers(name, tmp_path):
    compare(folder_of(tmp_path / "m", **JSON_FOLDERS[name]), lambda text: True)


def compare(folder, wanted):
    judge = pytest.importorskip("transformers", reason="needs the extra: pip install '.[parity]'"
                                ).AutoTokenizer.from_pretrained(folder)
    tokenizer = load_tokenizer(folder)
    seen = 0
    for text in [*WORDS, *mixtures(tokenizer, 400)]:
        if wanted(text):
            seen += 1
            for raw in (False, True):
                assert tokenizer.encode(text, special=raw) == judge(
                    text, add_special_tokens=not raw).input_ids, text
    assert seen > 60 and tokenizer.eos_id == judge.eos_token_id


def ids(name, text, tmp_path):
    return load_tokenizer(folder_of(tmp_path / "m", **FOLDERS[name])).encode(text)


def test_the_same_without_transformers(tmp_path):
    bare = [i for i in PIECES.encode("\n")[1:]]  # without SentencePiece's space in front
    assert ids("legacy false", "<|im_start|>\n<|im_end|>", tmp_path) == [1, 512, *bare, 513]
    assert ids("added_tokens.json", "<|im_start|>\n", tmp_path) == [1, 512, *bare]
    assert ids("legacy true", "<|im_start|>\n", tmp_path) == [1, 512, *PIECES.encode("\n")]
    assert ids("legacy false", "once", tmp_path) == [1, *PIECES.encode("once")]
    assert ids("added_tokens.json", "foo bar", tmp_path) == [1, 514]
    assert ids("added_tokens_decoder", "<|im_end|> \n<x>", tmp_path) == [1, 513, 514]
    assert ids("add_eos_token", "once", tmp_path) == [1, *PIECES.encode("once"), 2]
    assert ids("no bos", "once", tmp_path) == PIECES.encode("once")
    assert 1 not in ids("split_special_tokens", "<s>", tmp_path)[1:]


def test_truncation_padding_and_dropout_are_off(tmp_path):
    long = "once upon a time there was a little bird"
    whole = load_tokenizer(folder_of(tmp_path / "w", tokenizer_json=JSON)).encode(long)
    for name in ("truncation", "padding"):
        folder = folder_of(tmp_path / name, **JSON_FOLDERS[name])
        assert load_tokenizer(folder).encode(long) == whole and len(whole) > 4
    data = json.loads(JSON)
    data["model"].update(dropout=0.9, ignore_merges=False)
    folder = folder_of(tmp_path / "d", tokenizer_json=json.dumps(data))
    assert all(load_tokenizer(folder).encode(long) == whole for _ in range(5))


def test_end_of_text_and_template_variables(tmp_path):
    template = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"
    for kind, eos in (("special_tokens_map", "<|im_end|>"), ("added_tokens.json", "</s>")):
        tokenizer = load_tokenizer(folder_of(tmp_path / kind, template=template, **FOLDERS[kind]))
        assert tokenizer.token(tokenizer.eos_id) == eos
        assert tokenizer.template.render([{"role": "user", "content": "a"}]) == f"<s>a{eos}"
    bare = load_tokenizer(folder_of(tmp_path / "bare", template=template))
    assert bare.template.render([{"role": "user", "content": "a"}]) == "<s>a</s>"


def test_notes(tmp_path):
    """Note what transformers 4 and 5 do differently, and a setting that changes a chat."""
    def notes(**files):
        folder = folder_of(tmp_path / str(len(list(tmp_path.iterdir()))), **files)
        return load_tokenizer(folder).notes
    assert "add_bos_token is true, but tokenizer.json adds none" in notes(
        **JSON_FOLDERS["add_bos_token"])[0]
    assert "split_special_tokens is true" in notes(**JSON_FOLDERS["split_special_tokens"])[0]
    assert "names '<|im_end|>' as end of text" in notes(
        special={"eos_token": "<|im_end|>"},
        config={**LLAMA, "added_tokens_decoder": without_id(DECODER)})[0]
    assert notes(config=LLAMA) == []


def test_damaged_small_files(tmp_path):
    for files, complaint in (
            ({"added": {"<x>": "512"}}, "'<x>' has id '512', expected an integer"),
            ({"config": {"added_tokens_decoder": {"a": {"content": "x"}}}}, "must map ids"),
            ({"config": {"added_tokens_decoder": {"512": {"special": True}}}}, "is not usable"),
            ({"config": {**FAST, "added_tokens_decoder": {"700": {"content": "<x>"}}},
              "tokenizer_json": JSON}, "'<x>' has id 637, but .* states 700")):
        with pytest.raises(TokenizerError, match=complaint):
            load_tokenizer(folder_of(tmp_path / str(len(list(tmp_path.iterdir()))), **files))


def test_no_tokenizer_or_another(tmp_path):
    (tmp_path / "vocab.json").write_text("{}")
    found = load_tokenizer(tmp_path)
    assert isinstance(found, NoTokenizer) and "(it has vocab.json, which are not" in found.reason
    with pytest.raises(TokenizerError, match="give token ids instead of text"):
        found.encode("a")
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")
    with pytest.raises(TokenizerError, match="tiktoken's ranks"):
        load_tokenizer(tmp_path)
