"""Names of pre-tokenizers: aliases, splits, what is unknown, and what a plugin adds."""

import json
import sys
import types
from importlib.metadata import EntryPoint, entry_points

import pytest
from format_models import random_model
from tokenizer_files import entry, json_of, mixtures

import models
from core.errors import PluginError, TokenizerError
from core.installed.discovery import GROUP
from core.installed.loader import Plugins
from core.installed.registry import Registry
from core.plugins.hookspecs import hookimpl
from models.checkpoints.base import read_checkpoint
from models.json_reader import ConfigReader
from models.tokenizers import pretokenizers
from models.tokenizers.base import JsonTokenizer
from models.tokenizers.build import build_tokenizer, vocabulary_of
from models.tokenizers.byte_pairs import from_json
from models.tokenizers.pretokenizers import (
    find_pretokenizer,
    name_of,
    pretokenizer_names,
    use_pretokenizers,
)
from models.tokenizers.refused_names import REFUSED

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def named(pre, family="llama3"):
    v = vocabulary_of(random_model(family).tokenizer, "made")
    v.pre, v.add_bos = pre, False
    return build_tokenizer(v, "made")


def splits(pre, text):
    from tokenizers import Tokenizer
    found = Tokenizer.from_str(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
        "normalizer": None, "pre_tokenizer": find_pretokenizer(pre, "").block,
        "post_processor": None, "decoder": None,
        "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}))
    return [part.replace("\u0120", " ").replace("\u010a", "\n") for part, _ in
            found.pre_tokenizer.pre_tokenize_str(text)]


@pytest.mark.parametrize("alias,name", [
    ("llama3", "llama-bpe"), ("llama-v3", "llama-bpe"), ("falcon3", "llama-bpe"),
    ("deepseek-r1-qwen", "qwen2")])
def test_aliases(alias, name):
    assert find_pretokenizer(alias, "") == find_pretokenizer(name, "")
    first, second = named(alias), named(name)
    for text in mixtures(first, 100):
        assert first.encode(text) == second.encode(text)


@pytest.mark.parametrize("pre,expected", [
    ("llama-bpe", ["Don", "'t", " pay", " ", "123", "45", "!?\n\n", "  ", " x"]),
    ("qwen2", ["Don", "'t", " pay", " ", "1", "2", "3", "4", "5", "!?\n\n", "  ", " x"]),
    ("smollm", ["Don", "'t", " pay", " ", "1", "2", "3", "4", "5", "!?", "\n\n  ", " x"]),
    ("gpt-2", ["Don", "'t", " pay", " 12345", "!?", "\n\n  ", " x"]),
    ("tekken", ["Don", "'t", " pay", " ", "1", "2", "3", "4", "5", "!?\n\n", "  ", " x"]),
    ("gpt-4o", ["Don't", " pay", " ", "123", "45", "!?\n\n", "  ", " x"]),
    ("deepseek-v3", ["Don", "'t", " pay", " ", "123", "45", "!?\n\n", "  ", " x"]),
    ("qwen35", ["Don", "'t", " pay", " ", "1", "2", "3", "4", "5", "!?\n\n", "  ", " x"]),
    ("falcon", ["Don", "'", "t", " pay", " ", "123", "45", "!?", "\n\n  ", " x"]),
    ("seed-coder", ["Don", "'t", " pay", " ", "1", "2", "3", "4", "5", "!?", "\n\n", "  ", " x"]),
])
def test_splits(pre, expected):
    text = "Don't pay 12345!?\n\n   x"
    assert splits(pre, text) == expected


@pytest.mark.parametrize("name", pretokenizer_names())
def test_every_name_loads_and_is_found_again(name):
    tokenizer = named(name)
    text = "Don't PAY 12,345.6 naïve 日本語ひらがな\n\n  a/b\t"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    found = name_of(json.loads(tokenizer.to_json()))
    assert find_pretokenizer(found, "") == find_pretokenizer(name, "")
    assert from_json(tokenizer.to_json(), "made").pre == found


def test_unknown_names_are_errors():
    with pytest.raises(TokenizerError, match=r"'none-such' is unknown; expected .*smollm"):
        named("none-such")
    data = json.loads(json_of("stories-llama3", [entry(None, "<a>")]))
    data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "x+"}, "behavior": "Isolated", "invert": False},
        BYTES]}
    tokenizer = JsonTokenizer(json.dumps(data), ConfigReader({}, "made"), None)
    with pytest.raises(TokenizerError, match="has no name in GGUF that is known here"):
        vocabulary_of(tokenizer, "made")


@pytest.mark.parametrize("name", REFUSED)
def test_published_names_that_are_refused(name):
    assert name not in pretokenizer_names()
    with pytest.raises(TokenizerError, match=f"pre-tokenizer {name!r} is not supported: "):
        named(name)


@pytest.mark.parametrize("behavior", [("Isolated", False), ("Removed", True)])
def test_a_split_that_keeps_what_it_matches(behavior):
    """Two ways to write the same, where the expression matches every character."""
    data = {"model": {}, "normalizer": {"type": "NFC"},
            "pre_tokenizer": json.loads(json.dumps(find_pretokenizer("qwen2", "").block))}
    data["pre_tokenizer"]["pretokenizers"][0].update(behavior=behavior[0], invert=behavior[1])
    assert name_of(data) == "qwen2"


def test_a_plugin_adds_a_name(monkeypatch):
    block = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "[a-m]+"}, "behavior": "Isolated", "invert": False},
        BYTES]}
    plugin = types.ModuleType("a_split")
    plugin.KERNELYARD_API = 2

    @hookimpl
    def register_pretokenizers(register):
        register("a-split", models.PreTokenizer(block, ignore_merges=True))
        register("b-split", block)
        register("qwen2", block)
    plugin.register_pretokenizers = register_pretokenizers
    monkeypatch.setitem(sys.modules, "a_split", plugin)
    monkeypatch.setattr(pretokenizers, "_OFFERED", {})
    registry = Registry(Plugins([*entry_points(group=GROUP),
                                 EntryPoint("a_split", "a_split", GROUP)]))
    for _ in range(2):  # a second read finds the same again
        read_checkpoint("stories-llama3", registry)
    assert not registry.plugins.broken
    dropped, = registry.plugins.dropped  # a name means one thing
    assert "'qwen2' is already registered" in str(dropped)
    assert splits("b-split", "abxyz") == splits("a-split", "abxyz")
    assert splits("qwen2", "abxyz") == ["abxyz"]
    assert splits("a-split", "abxyz") == ["ab", "xyz"]
    assert named("a-split").encode("ab") == named("llama-bpe").encode("ab")


def test_what_a_plugin_may_not_register():
    with pytest.raises(PluginError, match=r"'x' is .*expected a PreTokenizer"):
        use_pretokenizers({"x": {"Regex": "a"}})
