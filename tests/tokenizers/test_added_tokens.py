"""Special and other added tokens keep their ids and kinds, whatever file they travel through."""

import itertools
import json

import pytest
from format_models import random_model
from tokenizer_files import (
    check_equal,
    entry,
    json_of,
    mixtures,
    through_bin,
    through_folder,
    through_gguf,
)

from core.errors import TokenizerError
from models.json_reader import ConfigReader
from models.tokenizers.base import JsonTokenizer, SentencePieceTokenizer
from models.tokenizers.build import build_tokenizer, vocabulary_of
from models.tokenizers.check import check_same
from models.tokenizers.sentencepiece_model import piece_types
from models.tokenizers.vocabulary import TokenType

pytest.importorskip("gguf", reason="GGUF tests need the extra: pip install '.[gguf]'")
FLAGS = [dict(special=special, normalized=normalized, **strip)
         for special, normalized, strip in itertools.product(
             (True, False), (False, True), ({}, {"lstrip": True}, {"rstrip": True},
                                            {"single_word": True}))]
ROUTES = [through_gguf, through_folder]
SETTINGS = ConfigReader({"bos_token": "<a>", "eos_token": "<e>"}, "made")
PROTO = random_model("llama2").tokenizer.processor.serialized_model_proto()


def name_of(flags):
    return "-".join(k for k, v in flags.items() if v) or "plain"


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("first", [False, True], ids=["behind", "in front"])
@pytest.mark.parametrize("flags", FLAGS, ids=name_of)
@pytest.mark.parametrize("name", ["stories-llama3", "stories-qwen2"])
def test_byte_pairs(name, flags, first, route, tmp_path):
    """One token begins another, one holds a space, one a letter that NFC makes."""
    text = json_of(name, [entry(None, "<a>"), entry(None, "<a>b", **flags), entry(
        None, "foo bar", **flags), entry(None, "é|", **flags), entry(None, "<e>")], first=first)
    origin = JsonTokenizer(text, SETTINGS, None)
    made = route(origin, tmp_path)
    assert made.added == origin.added and made.size == origin.size
    assert (made.bos_id, made.eos_id) == (origin.bos_id, origin.eos_id)
    check_equal(made, origin)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("flags", FLAGS, ids=name_of)
def test_sentencepiece(flags, legacy, route, tmp_path):
    """Behind the pieces with a gap, on a piece, and in place of one (these two found anywhere: no
    model can make a piece both ordinary and not)."""
    there = random_model("llama2").tokenizer.processor.id_to_piece(400)
    added = {str(i): entry(i, text, **flags) for i, text in (
        (513, "<a>"), (515, "<a>b"), (516, "foo bar"))}
    added |= {str(i): entry(i, text, **{**flags, "single_word": False})
              for i, text in ((400, there), (401, "<renamed>"))}
    origin = SentencePieceTokenizer(PROTO, ConfigReader(
        {"legacy": legacy, "add_eos_token": legacy, "added_tokens_decoder": added}, "made"), None)
    made = route(origin, tmp_path)
    assert made.added == origin.added and made.legacy == legacy
    check_equal(made, origin)


@pytest.mark.parametrize("keys", [
    {"legacy": True}, {"legacy": False}, {"tokenizer_class": "LlamaTokenizer"},
    {"legacy": False, "add_bos_token": False, "add_eos_token": True}], ids=str)
def test_llama2c_bin(keys, tmp_path):
    """The file has no kinds: special tokens are the first three. tokenizer_config.json beside it
    says the rest."""
    origin = SentencePieceTokenizer(PROTO, ConfigReader(keys, "x"), None)
    check_equal(through_bin(origin, tmp_path), origin)


def test_llama2c_bin_fixes_three_tokens(tmp_path):
    v = vocabulary_of(random_model("llama2").tokenizer, "made")
    v.tokens[1] = "<begin>"
    made = build_tokenizer(v, "made")
    with pytest.raises(TokenizerError, match=r"0, 1 and 2, the model has '<unk>', '<begin>', '</s"):
        through_bin(made, tmp_path)


def test_an_export_that_decodes_otherwise_is_refused():
    """Gemma 3: tokens of several spaces are added ones, and give other text where they are not."""
    origin = random_model("llama2").tokenizer

    class Other(type(origin)):
        def decode(self, ids):
            return super().decode(ids).replace("  ", "\u2581\u2581")
    made = Other(PROTO, origin.settings, None)
    with pytest.raises(TokenizerError, match=r"GGUF cannot hold .* give the text ' a  b   c"):
        check_same(made, origin, vocabulary_of(origin, "made"), "m", "GGUF")


def test_as_todays_converter_writes_qwen2():
    """Special tokens stand before ids without a token, which are of type UNUSED."""
    tokenizer = random_model("qwen2").tokenizer
    v = vocabulary_of(tokenizer, "made")
    v.tokens += [f"[PAD{i}]" for i in range(640, 700)]
    v.types += [int(TokenType.UNUSED)] * 60
    made = build_tokenizer(v, "made")
    assert made.encode("<|im_start|>a<|im_end|>", special=True) == [
        638, *tokenizer.encode("a"), 639]
    assert made.size == 640 and made.token(650) is None and made.decode([650]) == ""
    check_equal(made, tokenizer)


def test_user_defined_pieces_are_found_whole():
    """Take them out of the text first, as llama.cpp does; the space goes before what follows."""
    v = vocabulary_of(random_model("llama2").tokenizer, "made")
    v.tokens.append("<|user|>")
    v.types.append(int(TokenType.USER_DEFINED))
    v.scores.append(0.0)
    v.legacy = True
    made = build_tokenizer(v, "made")
    assert made.encode("<|user|>once", special=True) == [512, *made.encode("once", special=True)]
    assert made.decode(made.encode("once<|user|> upon")) == "once<|user|>  upon"
    assert piece_types(made.processor.serialized_model_proto())[512] == TokenType.USER_DEFINED


@pytest.mark.parametrize("family", ["llama2", "llama3"])
def test_an_ordinary_token_may_be_named(family):
    """Converters write 0 for the unknown token where there is none, and 0 is `!`."""
    v = vocabulary_of(random_model(family).tokenizer, "made")
    ordinary = next(i for i, kind in enumerate(v.types) if kind == TokenType.NORMAL)
    plain = build_tokenizer(v, "made")
    v.unk_id = v.eos_id = ordinary
    made = build_tokenizer(v, "made")
    assert made.eos_id == ordinary and made.special_tokens.keys() <= plain.special_tokens.keys()
    for text in mixtures(plain, 100):
        if "<unk>" not in text:
            assert made.decode(made.encode(text)) == plain.decode(plain.encode(text))


@pytest.mark.parametrize("family", ["llama2", "llama3"])
def test_a_table_that_repeats_tokens_is_refused(family):
    v = vocabulary_of(random_model(family).tokenizer, "made")
    ordinary = [i for i, kind in enumerate(v.types) if kind == TokenType.NORMAL]
    v.tokens[ordinary[-1]] = v.tokens[ordinary[-2]]
    with pytest.raises(TokenizerError, match="made"):
        build_tokenizer(v, "made")
    v = vocabulary_of(random_model(family).tokenizer, "made")
    special = [i for i, kind in enumerate(v.types) if kind == TokenType.CONTROL]
    v.tokens[special[-1]] = v.tokens[special[0]]
    with pytest.raises(TokenizerError, match="made"):
        build_tokenizer(v, "made")


def test_a_damaged_merge_list_is_refused():
    """Merges of another model: every token exists, and texts do not come back."""
    v = vocabulary_of(random_model("llama3").tokenizer, "made")
    letter = {v.tokens[i]: i for i, kind in enumerate(v.types) if kind == TokenType.NORMAL}
    v.tokens[letter["a"]], v.tokens[letter["b"]] = "b", "\u0120\u0120"
    with pytest.raises(TokenizerError, match="made"):
        build_tokenizer(v, "made")


def test_a_file_whose_ids_the_library_would_change():
    """An added token beyond the end: `tokenizers` gives it the next id without a word."""
    data = json.loads(json_of("stories-llama3", [entry(None, "<a>"), entry(None, "<e>")]))
    data["added_tokens"].append(entry(900, "<late>"))
    with pytest.raises(TokenizerError, match="states id 900 for '<late>'"):
        JsonTokenizer(json.dumps(data), SETTINGS, None)


@pytest.mark.parametrize("blocks", [
    {"normalizer": {"type": "Lowercase"}},
    {"post_processor": {"type": "TemplateProcessing", "single": [
        *[{"SpecialToken": {"id": "<a>", "type_id": 0}}] * 2,
        {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}},
        {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<a>": {"id": "<a>", "ids": [635], "tokens": ["<a>"]}}}}])
def test_what_gguf_cannot_hold_is_refused(blocks, tmp_path):
    origin = JsonTokenizer(json_of("stories-llama3", [entry(None, "<a>"), entry(None, "<e>")],
                                   **blocks), SETTINGS, None)
    with pytest.raises(TokenizerError, match="GGUF cannot hold this tokenizer"):
        through_gguf(origin, tmp_path)
    check_equal(through_folder(origin, tmp_path), origin)
