"""Reads the tokenizer inside a GGUF file: SentencePiece ("llama") or byte-level BPE ("gpt2").

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer, and two of our own for
what they leave out: `kernelyard.tokenizer.legacy` and `kernelyard.tokenizer.added_tokens`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from core.errors import TokenizerError
from core.reading import parse_json, shown
from models.checkpoints.generation import stop_origins
from models.checkpoints.gguf.header import GgufHeader
from models.tokenizers.added import AddedToken
from models.tokenizers.base import NoTokenizer, Tokenizer
from models.tokenizers.build import build_tokenizer
from models.tokenizers.chat_template import DEFAULT
from models.tokenizers.pretokenizers import find_pretokenizer
from models.tokenizers.vocabulary import TokenType, Vocabulary

LEGACY, ADDED = "kernelyard.tokenizer.legacy", "kernelyard.tokenizer.added_tokens"
STOPS = "kernelyard.stop_token_ids"
_NONE = ("none", "no_vocab")
#: Special tokens that end a turn by their text, whatever the keys say, as llama.cpp has it.
_ENDS = frozenset((
    "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>",
    "<|end_of_text|>", "<|return|>", "<|call|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
    "<end_of_utterance>", "<\uff5cend\u2581of\u2581sentence\uff5c>"))


def read_gguf_tokenizer(header: GgufHeader) -> Tokenizer:
    """Raises TokenizerError for an unknown model or pre-tokenizer: a default would tokenise almost
    everything alike and some of it wrongly."""
    where, meta = str(header.path), header.metadata
    model = meta.get("tokenizer.ggml.model")
    if model in (None, *_NONE):
        return NoTokenizer(f"{where} holds no tokenizer (tokenizer.ggml.model); convert the model "
                           "again, with its vocabulary")
    if model not in ("llama", "gpt2"):
        raise TokenizerError(f"{where}: tokenizer model {model!r} is not supported, expected "
                             "'llama' (SentencePiece) or 'gpt2' (byte-level BPE)")
    bpe = model == "gpt2"
    pre = str(meta.get("tokenizer.ggml.pre", ""))
    # what llama.cpp assumes where the key is missing
    default_bos = find_pretokenizer(pre, where).add_bos if bpe else True
    tokens, types = _list(meta, "tokens", str, where), _list(meta, "token_type", int, where)
    # llama.cpp's ids where SentencePiece's are not stated
    ids = {name: meta.get(f"tokenizer.ggml.{name}_token_id", None if bpe else default)
           for name, default in (("bos", 1), ("eos", 2), ("unknown", 0))}
    for name, value in ids.items():
        if value is not None and type(value) is not int:
            raise TokenizerError(f"{where}: tokenizer.ggml.{name}_token_id is {value!r}, expected "
                                 "an integer")
    merges = [m.split(" ", 1) for m in _list(meta, "merges", str, where)] if bpe else []
    if any(len(m) != 2 for m in merges):
        raise TokenizerError(f"{where}: a merge is not two tokens with a space between them")
    # llama.cpp takes these for special, whatever type a converter gave them
    types = [int(TokenType.CONTROL) if kind == TokenType.NORMAL and token in _ENDS else kind
             for token, kind in zip(tokens, types, strict=False)] + types[len(tokens):]
    unknown = ids["unknown"]
    if not bpe:  # SentencePiece has one unknown piece; llama.cpp finds others in a text
        types = [int(TokenType.UNKNOWN) if i == unknown else int(TokenType.CONTROL)
                 if kind == TokenType.UNKNOWN else kind for i, kind in enumerate(types)]
    v = Vocabulary(
        bpe, tokens, types, [] if bpe else _list(meta, "scores", float, where),
        [(m[0], m[1]) for m in merges], pre, ids["bos"], ids["eos"],
        unknown,
        _flag(meta, "add_bos_token", default_bos, where),
        _flag(meta, "add_eos_token", False, where), _flag(meta, "add_space_prefix", True, where),
        bool(meta.get(LEGACY, True)), _added(meta, where), _templates(meta, where))
    return build_tokenizer(v, where)


def stop_ids(header: GgufHeader, tokenizer: Tokenizer) -> dict[int, str]:
    """Return our own list, EOS, EOT and EOM, and special tokens that end a turn by their text, each
    with where it comes from. Raises TokenizerError for one that is no id."""
    meta = header.metadata
    named = [(STOPS, meta.get(STOPS, [])), *((key, [meta.get(key, default)]) for key, default in (
        ("tokenizer.ggml.eos_token_id", tokenizer.eos_id), ("tokenizer.ggml.eot_token_id", None),
        ("tokenizer.ggml.eom_token_id", None)))]
    count = _count(meta)
    for key, ids in named:
        if not isinstance(ids, list) or any(i is not None and type(i) is not int for i in ids):
            raise TokenizerError(f"{header.path}: {key} is {shown(meta[key])}, expected token ids")
        beyond = [i for i in ids if i is not None and not 0 <= i < count]
        if beyond:
            raise TokenizerError(f"{header.path}: {key} is {beyond[0]}, the vocabulary has "
                                 f"{count} tokens")
    return stop_origins(*named, ("its text", [
        i for text, i in tokenizer.special_tokens.items() if text in _ENDS]))


def _count(meta: Mapping[str, Any]) -> float:
    """Return the number of tokens; no bound where the file lists none."""
    tokens = meta.get("tokenizer.ggml.tokens")
    return len(tokens) if isinstance(tokens, list) else math.inf


def _templates(meta: Mapping[str, Any], where: str) -> dict[str, str]:
    """Read `tokenizer.chat_template`, and each `.NAME` of it; `tokenizer.chat_templates` lists the
    names. Raises TokenizerError for one that is no text, or is not there."""
    key = "tokenizer.chat_template"
    found = {name.removeprefix(f"{key}."): meta[name] for name in meta
             if name.startswith(f"{key}.")}
    if key in meta:
        found = {DEFAULT: meta[key], **found}
    names = meta.get(f"{key}s", [])
    if not isinstance(names, list) or any(name not in found for name in names):
        raise TokenizerError(f"{where}: {key}s is {shown(names)}, expected the names of chat "
                             f"templates that the file has, which are {shown(sorted(found))}; "
                             "convert the model again")
    for name, text in found.items():
        if not isinstance(text, str):
            raise TokenizerError(f"{where}: chat template {name!r} is {shown(text)}, expected a "
                                 "text; convert the model again")
    return found


def _added(meta: Mapping[str, Any], where: str) -> dict[int, AddedToken]:
    try:
        entries = parse_json(meta.get(ADDED, "{}"))
        return {int(i): AddedToken.parse(entry, where) for i, entry in entries.items()}
    except (AttributeError, TypeError, ValueError):
        raise TokenizerError(f"{where}: {ADDED} is not an object of ids and tokens in JSON") \
            from None


def _flag(meta: Mapping[str, Any], name: str, default: bool, where: str) -> bool:
    value = meta.get(f"tokenizer.ggml.{name}", default)
    if type(value) is not bool:
        raise TokenizerError(f"{where}: tokenizer.ggml.{name} is {value!r}, expected true or false")
    return value


def _list(meta: Mapping[str, Any], name: str, kind: type, where: str) -> list[Any]:
    value = meta.get(f"tokenizer.ggml.{name}")
    if not isinstance(value, list) or not all(type(v) is kind for v in value):
        raise TokenizerError(f"{where}: tokenizer.ggml.{name} is missing or not a list of "
                             f"{kind.__name__}; the file holds no complete tokenizer")
    return value
