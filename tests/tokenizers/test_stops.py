"""Tests what ends a generation: stop ids that GGUF files name, stop strings with special tokens,
and tokens that a model has no embedding for."""

import json
import shutil
from dataclasses import replace

import pytest
from format_models import REGISTRY, random_model
from gguf_files import gguf, write_foreign
from tokenizer_files import checkpoint_of

import models
from core.errors import OptionError, PromptError, TokenizerError
from models.checkpoints.base import SHIPPED, read_checkpoint
from models.checkpoints.gguf.header import read_header
from models.checkpoints.gguf.tokenizer import read_gguf_tokenizer, stop_ids
from models.checkpoints.gguf.writer import add_tokenizer
from models.checkpoints.huggingface.tokenizer_files import write_tokenizer_bin
from models.engine.load import open_checkpoint
from models.engine.options import LoadOptions
from models.tokenizers.base import NoTokenizer, load_tokenizer
from models.tokenizers.build import build_tokenizer, vocabulary_of
from models.tokenizers.streaming import StopStrings
from models.tokenizers.vocabulary import TokenType


def written(path, texts, kind=TokenType.CONTROL, eos_ids=(), **keys):
    """A GGUF vocabulary whose last tokens are `texts`, and its stop ids as texts."""
    v = vocabulary_of(random_model("llama3").tokenizer, "made")
    for i, text in enumerate(texts, len(v.tokens) - len(texts)):
        v.tokens[i], v.types[i] = text, int(TokenType.CONTROL)
    v.bos_id, v.eos_id, v.add_bos = 1, None, False
    checkpoint = replace(checkpoint_of(build_tokenizer(v, "made")), eos_ids=eos_ids)
    writer = gguf.GGUFWriter(path, "llama")
    add_tokenizer(writer, checkpoint, 640)
    types = writer.kv_data[0]["tokenizer.ggml.token_type"].value
    types[640 - len(texts):] = [int(kind)] * len(texts)
    for key, value in keys.items():
        writer.add_uint32(f"tokenizer.ggml.{key}_token_id", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    header = read_header(path)
    tokenizer = read_gguf_tokenizer(header)
    return tokenizer, {tokenizer.token(i) for i in stop_ids(header, tokenizer)}


ENDS = ["<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>"]


@pytest.mark.parametrize("kind", [TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.NORMAL])
def test_ends_of_turn_by_text(kind, tmp_path):
    """llama.cpp takes them for special whatever their type says; other special tokens are none."""
    tokenizer, stops = written(tmp_path / "t", [*ENDS[:4], "<|other|>"], kind)
    assert stops == {text for text in ENDS[:4] if text in tokenizer.special_tokens}
    assert kind == TokenType.USER_DEFINED or stops == set(ENDS[:4])


def test_union_of_keys_and_texts(tmp_path):
    texts = ["<|im_end|>", "<x>", "<y>", "<z>"]
    _, stops = written(tmp_path / "t", texts, eos=637, eot=638, eom=639)
    assert stops == {"<|im_end|>", "<x>", "<y>", "<z>"}


def test_more_stop_ids_than_keys_survive(tmp_path):
    texts = [f"<{c}>" for c in "abcde"]
    _, stops = written(tmp_path / "t", texts, eos_ids=(635, 636, 637, 638, 639))
    assert stops == set(texts)


@pytest.mark.parametrize("stop,pieces,expected", [
    ("<e>", [("one", True), ("<e>", False)], "one"),
    ("\n<e>", [("one\n", True), ("<e>", False)], "one"),
    ("<e>\n<s>", [("one", True), ("<e>", False), ("\n", True), ("<s>", False)], "one"),
    ("<e>\n", [("one", True), ("<e>", False), (" two", True)], None),
    ("never", [("one", True), ("<e>", False), ("ne", True), (" two", True)], None)])
def test_stop_strings_see_hidden_tokens(stop, pieces, expected):
    stops = StopStrings([stop])
    text = "".join(stops.push(t, shown=shown) for t, shown in pieces if not stops.hit)
    assert stops.hit == (expected is not None)
    assert text + stops.flush() == (expected if expected is not None else
                                    "".join(t for t, shown in pieces if shown))


@pytest.fixture(scope="module")
def chatty():
    """A model that says a special token, which is no stop id, after some text."""
    model = random_model("qwen2", layers=1)
    model = replace(model, eos_ids=())
    with open_checkpoint(model, LoadOptions(dtype="f32"), REGISTRY) as opened:
        special = opened.tokenizer.special_tokens
        for start in range(3, 600):
            run = opened.generate([start], max_new_tokens=40).run()
            at = next((i for i, t in enumerate(run.tokens) if t in special.values()), 0)
            if at > 2:
                yield opened, start, run, at
                return
    pytest.fail("no prompt makes the model say a special token")


def test_a_special_token_as_stop_string(chatty):
    """It is hidden in the text, and ends it all the same."""
    opened, start, whole, at = chatty
    text = opened.tokenizer.token(whole.tokens[at])
    assert text not in whole.text and len(whole.tokens) == 40
    run = opened.generate([start], max_new_tokens=40, stop=text).run()
    assert run.finish_reason == "stop" and run.tokens == whole.tokens[:at + 1]
    assert whole.text.startswith(run.text) and run.text == opened.tokenizer.decode(
        [start, *run.tokens])[len(opened.tokenizer.decode([start])):]
    part = opened.generate([start], max_new_tokens=40, stop=text[1:-1]).run()
    assert part.tokens == whole.tokens  # a part of a hidden token stops nothing


def test_a_model_without_tokenizer(tmp_path):
    """Read a folder as save_pretrained writes it: ids run and give the same tokens, text is
    refused."""
    folder = tmp_path / "m"
    shutil.copytree(SHIPPED / "stories-llama2", folder, ignore=shutil.ignore_patterns("token*"))
    with models.load(folder) as model, models.load("stories-llama2") as whole:
        run = model.generate([1, 403, 407], max_new_tokens=8).run()
        assert run.tokens == whole.generate([1, 403, 407], max_new_tokens=8).run().tokens
        assert run.text == "" and isinstance(model.tokenizer, NoTokenizer)
        for ask in (lambda: model.generate("Once"),
                    lambda: model.generate([1], stop="x")):
            with pytest.raises(TokenizerError, match=r"has no tokenizer\.json and no"):
                ask()


def test_a_tokenizer_larger_than_the_embedding(tmp_path):
    """An added token without embedding is noted, and is an error once it is produced; a tokenizer
    that is larger in its ordinary pieces is another model's. A smaller one is fine."""
    folder = tmp_path / "m"
    shutil.copytree(SHIPPED / "stories-llama2", folder)
    (folder / "added_tokens.json").write_text(json.dumps({"[PAD]": 512}))
    with models.load(folder) as model:
        assert [n for n in model.notes if "no embedding for '[PAD]' (512)" in n]
        assert model.generate("Once upon", max_new_tokens=3).run().text
        with pytest.raises(PromptError, match=r"token ids \[512 \('\[PAD\]'\)\] are outside"):
            model.generate("Once [PAD] upon")
    with pytest.raises(TokenizerError, match="belongs to another model"):
        open_checkpoint(random_model("llama2", vocab=500), LoadOptions(), REGISTRY)
    with open_checkpoint(random_model("llama2", vocab=640), LoadOptions(), REGISTRY) as padded:
        assert padded.encode("Once") == random_model("llama2").tokenizer.encode("Once")


def test_chat_needs_a_tokenizer(tmp_path):
    from models.cli.chat import chat
    _, path = write_foreign(tmp_path / "m", random_model(dim=256, hidden=512, layers=1),
                            tokenizer=False)
    with models.load(path) as model, pytest.raises(OptionError, match="--chat needs text"):
        chat(model, {}, lambda: None)
    assert isinstance(read_checkpoint(path, REGISTRY).tokenizer, NoTokenizer)


def test_tokenizer_bin_refuses_tokens_whose_kind_it_cannot_say(tmp_path):
    tokenizer = load_tokenizer(SHIPPED / "stories-llama2")
    v = vocabulary_of(tokenizer, "made")
    v.types[300] = int(TokenType.CONTROL)
    made = checkpoint_of(build_tokenizer(v, "made"))
    with pytest.raises(TokenizerError, match=r"tokenizer.bin cannot say that .* \(1\); export"):
        write_tokenizer_bin(made, tmp_path)
    assert not list(tmp_path.iterdir())
    write_tokenizer_bin(checkpoint_of(tokenizer), tmp_path)


def test_a_long_stop_string_costs_no_time():
    """Only as much of it is compared as there is text: 10**8 characters once never ended."""
    from models.tokenizers.streaming import StopStrings
    stops = StopStrings(["x" * 10**8])
    assert stops.push("xxx") == "" and stops.push("y") == "xxxy" and not stops.hit
