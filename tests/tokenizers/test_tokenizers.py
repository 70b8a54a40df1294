"""Tests tokenizers from GGUF: the published test texts of three vocabularies, and random
Unicode."""

import base64
import json
import random
import unicodedata
from pathlib import Path

import pytest
from format_models import random_model

from core.errors import TokenizerError
from models.checkpoints.gguf.header import read_header
from models.checkpoints.gguf.tokenizer import read_gguf_tokenizer
from models.json_reader import ConfigReader
from models.tokenizers.base import JsonTokenizer, SentencePieceTokenizer
from models.tokenizers.build import build_tokenizer, vocabulary_of
from models.tokenizers.llama2c_bin import read_tokenizer_bin, tokenizer_bin
from models.tokenizers.tiktoken_ranks import byte_letters, is_tiktoken, read_tiktoken

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "tokenizers"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is missing: the published "
                                "vocabularies are not part of the repository")
VOCABULARIES = ["llama-spm", "llama-bpe", "qwen2"]


def cases(name):
    """Return (text, ids) of llama.cpp's test files."""
    texts = (DATA / f"ggml-vocab-{name}.gguf.inp").read_text(encoding="utf-8")
    ids = (DATA / f"ggml-vocab-{name}.gguf.out").read_text().split("\n")
    texts = texts.split("\n__ggml_vocab_test__\n")
    return [(t, [int(i) for i in line.split()]) for t, line in zip(texts, ids, strict=False)]


@needs_data
@pytest.mark.parametrize("name", VOCABULARIES)
def test_published_texts(name):
    tokenizer = read_gguf_tokenizer(read_header(DATA / f"ggml-vocab-{name}.gguf"))
    found = cases(name)
    assert len(found) >= 46
    for text, ids in found:
        got = tokenizer.encode(text)
        if name != "qwen2":
            assert got[0] == tokenizer.bos_id, "Llama's vocabularies ask for BOS"
            got = got[1:]
        assert got == ids, text


@needs_data
@pytest.mark.parametrize("name", VOCABULARIES)
def test_published_texts_survive_a_rewrite(name):
    """vocabulary_of is what the writers of GGUF and of tokenizer.bin take."""
    first = read_gguf_tokenizer(read_header(DATA / f"ggml-vocab-{name}.gguf"))
    again = build_tokenizer(vocabulary_of(first, name), name)
    for text, _ in cases(name):
        assert again.encode(text) == first.encode(text)


@needs_data
def test_llama2_model_and_gguf_agree(tmp_path):
    """SentencePiece's file, GGUF and llama2.c's tokenizer.bin must give the same vocabulary."""
    published = SentencePieceTokenizer(DATA / "llama2-tokenizer.model", ConfigReader({}, ""), None)
    (tmp_path / "tokenizer.bin").write_bytes(tokenizer_bin(vocabulary_of(published, "published")))
    others = [read_gguf_tokenizer(read_header(DATA / "ggml-vocab-llama-spm.gguf")),
              build_tokenizer(read_tokenizer_bin(tmp_path / "tokenizer.bin"), "bin")]
    for text, ids in cases("llama-spm"):
        for tokenizer in (published, *others):
            assert tokenizer.encode(text) == [1, *ids]


@needs_data
def test_llama3_from_tiktoken_ranks(tmp_path):
    """Make Meta's tokenizer.model for Llama-3 from the published tokens in the order of their ids:
    the merges follow from the ranks alone."""
    published = vocabulary_of(read_gguf_tokenizer(read_header(
        DATA / "ggml-vocab-llama-bpe.gguf")), "published")
    back = {letter: byte for byte, letter in enumerate(byte_letters())}
    (tmp_path / "tokenizer.model").write_bytes(b"".join(
        base64.b64encode(bytes(back[c] for c in token)) + b" %d\n" % i
        for i, token in enumerate(published.tokens[:128000])))
    assert is_tiktoken(tmp_path / "tokenizer.model")
    assert not is_tiktoken(DATA / "llama2-tokenizer.model")
    v = read_tiktoken(tmp_path / "tokenizer.model")
    assert v.merges == published.merges and len(v.tokens) == 128256
    tokenizer = build_tokenizer(v, "ranks")
    for text, ids in cases("llama-bpe"):
        assert tokenizer.encode(text) == [128000, *ids], text


def as_transformers_stores(processor):
    """Make tokenizer.json of a SentencePiece BPE vocabulary, as transformers' LlamaConverter makes
    it: every split of a piece into two others is a merge, in the order of the pieces' scores."""
    ids = {processor.id_to_piece(i): i for i in range(processor.get_piece_size())}
    merges = []
    for piece, i in ids.items():
        splits = [(piece[:k], piece[k:]) for k in range(1, len(piece))]
        found = [s for s in splits if s[0] in ids and s[1] in ids]
        merges += [(processor.get_score(i), s)
                   for s in sorted(found, key=lambda s: (ids[s[0]], ids[s[1]]))]
    merges.sort(key=lambda m: m[0], reverse=True)
    space, bos = "\u2581", {"id": "<s>", "type_id": 0}
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": t, "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False, "special": True}
                         for i, t in enumerate(("<unk>", "<s>", "</s>"))],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": space},
            {"type": "Replace", "pattern": {"String": " "}, "content": space}]},
        "pre_tokenizer": None,
        "post_processor": {"type": "TemplateProcessing", "single": [
            {"SpecialToken": bos}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [
            {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": space}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "fuse_unk": True,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "byte_fallback": True, "ignore_merges": False, "vocab": ids,
                  "merges": [list(s) for _, s in merges]}})


def check_json_of_sentencepiece(processor, texts):
    settings = ConfigReader({"bos_token": "<s>", "eos_token": "</s>"}, "made")
    tokenizer = JsonTokenizer(as_transformers_stores(processor), settings, None)
    v = vocabulary_of(tokenizer, "made")
    assert (v.bpe, v.add_bos, v.bos_id, v.eos_id, v.unk_id) == (False, True, 1, 2, 0)
    again = build_tokenizer(v, "made")
    for text in texts:
        assert again.encode(text) == tokenizer.encode(text) == [1, *processor.encode(text)], text


def test_json_of_a_sentencepiece_vocabulary():
    """Read what TinyLlama's folder holds: it can be exported to GGUF and llama2.c as the model
    can."""
    check_json_of_sentencepiece(random_model("llama2").tokenizer.processor, unicode_texts(500))


@needs_data
def test_json_of_llama2():
    published = SentencePieceTokenizer(DATA / "llama2-tokenizer.model", ConfigReader({}, ""), None)
    check_json_of_sentencepiece(published.processor, [t for t, _ in cases("llama-spm") if t])


def unicode_texts(count):
    """Make random text of every plane, combining marks, spaces and controls; without surrogates,
    and without characters that composition (NFC, part of Qwen2's tokenizer) would change."""
    rng = random.Random(11)
    ranges = [(0x20, 0x7F), (0xA0, 0x250), (0x370, 0x600), (0x900, 0xA00), (0x3040, 0x30FF),
              (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x1F300, 0x1F6FF), (0x9, 0xE),
              (0x20000, 0x2A6DF)]
    for _ in range(count):
        text = "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(1, 24)))
        yield unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("family", ["llama2", "llama3", "qwen2"])
def test_random_unicode_round_trips(family):
    tokenizer = random_model(family).tokenizer
    again = build_tokenizer(vocabulary_of(tokenizer, family), family)
    for text in unicode_texts(10_000):
        ids = again.encode(text)
        assert ids == tokenizer.encode(text) and again.decode(ids) == text


@needs_data
@pytest.mark.parametrize("name", VOCABULARIES)
def test_random_unicode_round_trips_in_published_vocabularies(name):
    tokenizer = read_gguf_tokenizer(read_header(DATA / f"ggml-vocab-{name}.gguf"))
    for text in unicode_texts(10_000):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_and_template_survive():
    for family, special in (("llama3", "<|eot_id|>"), ("qwen2", "<|im_end|>")):
        tokenizer = random_model(family).tokenizer
        again = build_tokenizer(vocabulary_of(tokenizer, family), family)
        assert (again.bos_id, again.eos_id, again.size) == (
            tokenizer.bos_id, tokenizer.eos_id, tokenizer.size)
        assert again.template.render([{"role": "user", "content": "hi"}]) == (
            tokenizer.template.render([{"role": "user", "content": "hi"}]))
        assert again.encode(f"a{special}b", special=True) == (
            tokenizer.encode(f"a{special}b", special=True))


def test_added_tokens_of_a_sentencepiece_folder():
    """A chat model's tokenizer_config.json has added tokens that tokenizer.model has not."""
    proto = random_model("llama2").tokenizer.processor.serialized_model_proto()
    settings = ConfigReader({"added_tokens_decoder": {
        "512": {"content": "<|im_start|>", "special": True},
        "514": {"content": "<|im_end|>", "special": True}}}, "made")
    tokenizer = SentencePieceTokenizer(proto, settings, None)
    assert tokenizer.size == 515
    again = build_tokenizer(vocabulary_of(tokenizer, "made"), "made")
    assert again.size == 515
    for text in ("<|im_start|>a", "a<|im_end|>"):
        assert again.encode(text, special=True) == tokenizer.encode(text, special=True)


def test_vocabularies_that_cannot_be_used():
    v = vocabulary_of(random_model("llama3").tokenizer, "x")
    for change, complaint in (
            ({"pre": "deepseek-llm"}, "pre-tokenizer 'deepseek-llm' is not supported: its exp"),
            ({"pre": ""}, "pre-tokenizer '' is not supported: the file names none"),
            ({"types": [1]}, "640 tokens but 1"),
            ({"eos_id": 99999}, "the EOS id is 99999"), ({"tokens": []}, "is empty"),
            ({"merges": [("never", "there")]}, "cannot be read")):
        with pytest.raises(TokenizerError, match=complaint):
            build_tokenizer(type(v)(**{**vars(v), **change}), "x")
    v = vocabulary_of(random_model("llama2").tokenizer, "x")
    v.tokens[7] = v.tokens[8]
    with pytest.raises(TokenizerError, match="cannot be read"):
        build_tokenizer(v, "x")
