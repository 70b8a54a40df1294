"""Tests what a form may be, and how one that cannot be used is refused."""

import json
import pickle
import sys

import pytest

from core.errors import OptionError, TokenizerError
from models import ConfigReader, SamplingParams, StructuredOutputsParams
from models.serving.grammar.compiler import KEPT, GrammarCompiler
from models.serving.grammar.params import MOST_BYTES
from models.serving.grammar.token_bytes import token_bytes
from models.tokenizers.base import NoTokenizer
from models.tokenizers.json_tokenizer import JsonTokenizer


@pytest.mark.parametrize(("given", "said"), [
    ({}, "it has nothing, expected exactly one of json, regex, choice, grammar, json_object"),
    ({"json": {}, "regex": "a"}, "it has json and regex"),
    ({"json": 5}, "json is 5, expected a JSON schema"),
    ({"json": "{"}, "json is no JSON"), ({"json": {"a": float("nan")}}, "json is no JSON"),
    ({"json": {"a": {1}}}, "json is no JSON"), ({"regex": ""}, "regex is '', expected a text"),
    ({"regex": 5}, "regex is 5"), ({"grammar": ["a"]}, r"grammar is \['a'\]"),
    ({"choice": []}, r"choice is \[\]"), ({"choice": ["a", ""]}, "texts that are not empty"),
    ({"choice": "ab"}, "choice is 'ab'"), ({"json_object": 1}, "json_object is 1, expected True"),
    ({"json_object": False}, "it has nothing"), ({"choice": ["\ud800"]}, "written in UTF-8"),
    ({"regex": "a", "disable_any_whitespace": True}, "is for JSON, found regex"),
    ({"regex": "a" * MOST_BYTES}, "expected at most 262,144"),
    ({"structural_tag": "a"}, "'structural_tag', and that is not built"),
    (5, "5, expected an object")])
def test_bad_forms(given, said):
    with pytest.raises(OptionError, match=f"^structured_outputs .*{said}"):
        SamplingParams(structured_outputs=given)


def test_a_form_goes_with_no_other_end():
    for name, value in (("min_tokens", 3), ("ignore_eos", True)):
        with pytest.raises(OptionError, match=f"^{name} is {value}, and the form"):
            SamplingParams(structured_outputs={"regex": "a"}, **{name: value})


def test_forms_travel_between_processes():
    schema = {"type": "object"}
    for _ in range(300):  # deeper than pickle could follow
        schema = {"type": "array", "items": schema}
    params = SamplingParams(structured_outputs=StructuredOutputsParams(json=schema))
    assert pickle.loads(pickle.dumps(params)) == params == SamplingParams(
        structured_outputs={"json": schema})


@pytest.fixture
def compiler(story):
    return GrammarCompiler(story.tokenizer, story.config.vocab_size, frozenset())


def test_a_grammar_is_compiled_once(compiler, monkeypatch):
    form, bad = StructuredOutputsParams(regex="a|b"), StructuredOutputsParams(regex="(")
    assert not compiler.compiled(form)
    first = compiler.start(form)
    with pytest.raises(OptionError, match="unclosed group"):
        compiler.start(bad)
    monkeypatch.setattr(GrammarCompiler, "_compile", lambda *_: pytest.fail("compiled again"))
    assert compiler.compiled(form) and compiler.start(form) is not first
    with pytest.raises(OptionError, match="unclosed group"):
        compiler.start(bad)


def test_few_grammars_are_kept(compiler):
    forms = [StructuredOutputsParams(choice=[f"text {i}"]) for i in range(KEPT + 3)]
    for form in forms:
        compiler.start(form)
    assert [compiler.compiled(form) for form in forms] == [False] * 3 + [True] * KEPT


def test_states_of_two_sequences_are_their_own(story, compiler):
    form = StructuredOutputsParams(regex="ab")
    one, other = compiler.start(form), compiler.start(form)
    a, b = (story.tokenizer.processor.piece_to_id(f"<0x{ord(c):02X}>") for c in "ab")
    assert not one.accept(a) and one.accept(b) and not other.accept(a)
    assert not other.accept(a) and other.problem[0] == "error", "not allowed there"
    assert one.problem is None


def test_the_package_is_named(compiler, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(OptionError, match="module 'llguidance' is missing; fix: pip install"):
        compiler.start(StructuredOutputsParams(regex="a"))


@pytest.mark.parametrize(("decoder", "expected"), [
    ({"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
     [b"a", b" b", "▁c".encode(), b"<0x41>", b"\xc3", b""]),
    ({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}]}, [b"a", "Ġb".encode(), b" c", b"A", "Ã".encode(), b""]),
    ({"type": "WordPiece", "prefix": "##", "cleanup": True}, None)],
    ids=["byte level", "sentencepiece", "word pieces"])
def test_the_bytes_of_a_tokenizer_json(decoder, expected):
    tokens = ["a", "Ġb", "▁c", "<0x41>", "Ã", "<end>"]
    data = {"version": "1.0", "truncation": None, "padding": None, "normalizer": None,
            "added_tokens": [{"id": 5, "content": "<end>", "special": True, "normalized": False,
                              "lstrip": False, "rstrip": False, "single_word": False}],
            "pre_tokenizer": None, "post_processor": None, "decoder": decoder,
            "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens)}, "merges": []}}
    tokenizer = JsonTokenizer(json.dumps(data), ConfigReader({}, "t"), None)
    if expected is None:
        with pytest.raises(TokenizerError, match="its decoder is WordPiece"):
            token_bytes(tokenizer, 8)
        return
    found, special = token_bytes(tokenizer, 8)
    assert special == [5] and found == [*expected[:5], b"<end>", b"", b""]


def test_without_a_tokenizer():
    with pytest.raises(TokenizerError, match="no tokenizer here"):
        token_bytes(NoTokenizer("there is no tokenizer here"), 8)
