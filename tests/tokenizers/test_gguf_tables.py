"""Tokenizers in GGUF whose tables are odd: the right ids, or one sentence."""

from pathlib import Path

import pytest

from core.errors import TokenizerError
from models.checkpoints.base import SHIPPED
from models.checkpoints.gguf.header import GgufHeader
from models.checkpoints.gguf.tokenizer import read_gguf_tokenizer, stop_ids
from models.tokenizers.base import load_tokenizer
from models.tokenizers.build import vocabulary_of

BPE, PIECES = "stories-llama3", "stories-llama2"


def read(name, change):
    """Read a shipped tokenizer from a GGUF table in which `change` replaces values; None is no
    key."""
    v = vocabulary_of(load_tokenizer(SHIPPED / name), "made")
    table = {"model": "gpt2" if v.bpe else "llama", "tokens": v.tokens,
             "token_type": [int(kind) for kind in v.types], "bos_token_id": v.bos_id,
             "eos_token_id": v.eos_id, "add_bos_token": v.add_bos}
    table |= {"pre": v.pre, "merges": [" ".join(m) for m in v.merges]} if v.bpe else {
        "scores": v.scores}
    table |= {key: value(table[key]) if callable(value) else value
              for key, value in change.items()}
    header = GgufHeader(Path("m.gguf"), {f"tokenizer.ggml.{key}": value
                                         for key, value in table.items() if value is not None}, {})
    tokenizer = read_gguf_tokenizer(header)
    return tokenizer, stop_ids(header, tokenizer)


@pytest.mark.parametrize(("name", "change", "complaint"), [
    (BPE, {"token_type": None}, "token_type is missing"),
    (BPE, {"merges": None}, "merges is missing"),
    (PIECES, {"scores": None}, "scores is missing"),
    (BPE, {"token_type": lambda kinds: kinds[:-3]}, "640 tokens but 637 token types"),
    (BPE, {"token_type": lambda kinds: [0, *kinds[1:]]}, "token 0 has type 0, expected 1 to 6"),
    (PIECES, {"token_type": lambda kinds: [*kinds[:-1], 9]}, "token 511 has type 9, expected"),
    (PIECES, {"scores": lambda s: [*s[:-1], float("nan")]}, "a score is not a finite number"),
    (BPE, {"tokens": lambda t: [*t[:300], t[299], *t[301:]]}, "m.gguf"),
    (PIECES, {"tokens": lambda t: [*t[:300], t[299], *t[301:]]}, "is already defined"),
    (BPE, {"merges": lambda m: ["zzz yyy", *m]}, "`zzz` out of vocabulary"),
    (BPE, {"merges": lambda m: ["zzz", *m]}, "not two tokens with a space"),
    (BPE, {"eos_token_id": 99999}, "the EOS id is 99999"),
    (BPE, {"eot_token_id": 99999}, "eot_token_id is 99999, the vocabulary has 640 tokens"),
    (PIECES, {"eom_token_id": -1}, "eom_token_id is -1, the vocabulary has 512 tokens"),
    (BPE, {"bos_token_id": None, "add_bos_token": True}, "BOS is added to texts, and no BOS id"),
    (BPE, {"eos_token_id": None, "add_eos_token": True}, "EOS is added to texts, and no EOS id"),
    (BPE, {"add_bos_token": 1}, "add_bos_token is 1, expected true or false"),
    (BPE, {"pre": "newone"}, "'newone' is unknown"),
    (BPE, {"pre": None}, "the file names none")])
def test_refused(name, change, complaint):
    with pytest.raises(TokenizerError, match=complaint):
        read(name, change)


def test_pieces_have_llama_cpps_ids_where_none_are_stated():
    """BOS is 1, EOS 2 and the unknown token 0."""
    plain, stops = read(PIECES, {})
    made, found = read(PIECES, {"bos_token_id": None, "eos_token_id": None, "add_bos_token": None})
    assert made.encode("Once <unk> upon</s>") == plain.encode("Once <unk> upon</s>")
    assert (made.bos_id, made.eos_id) == (1, 2) and stops == {2: "tokenizer.ggml.eos_token_id"}
    assert list(found) == [2]
