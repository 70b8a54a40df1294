"""Reads the tokenizer inside a GGUF file: SentencePiece ("llama") or byte-level BPE ("gpt2").

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer.
"""

from __future__ import annotations

from typing import Any

from core.errors import TokenizerError
from models.checkpoints.gguf.header import GgufHeader
from models.tokenizers.base import Tokenizer
from models.tokenizers.build import build_tokenizer
from models.tokenizers.vocabulary import Vocabulary


def read_gguf_tokenizer(header: GgufHeader) -> Tokenizer:
    """Raises TokenizerError for an unknown model or pre-tokenizer: a default would tokenise almost
    everything alike and some of it wrongly."""
    where, meta = str(header.path), header.metadata
    model = meta.get("tokenizer.ggml.model")
    if model not in ("llama", "gpt2"):
        raise TokenizerError(f"{where}: tokenizer model {model!r} is not supported, expected "
                             "'llama' (SentencePiece) or 'gpt2' (byte-level BPE)")
    tokens = _list(meta, "tokens", str, where)
    ids = {name: meta.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "unknown")}
    for name, value in ids.items():
        if value is not None and type(value) is not int:
            raise TokenizerError(f"{where}: tokenizer.ggml.{name}_token_id is {value!r}, expected "
                                 "an integer")
    template = meta.get("tokenizer.chat_template")
    pre = str(meta.get("tokenizer.ggml.pre", ""))
    bpe = model == "gpt2"
    # what llama.cpp assumes where the key is missing
    default_bos = not bpe or pre == "llama-bpe"
    merges = [m.split(" ", 1) for m in _list(meta, "merges", str, where)] if bpe else []
    if any(len(m) != 2 for m in merges):
        raise TokenizerError(f"{where}: a merge is not two tokens with a space between them")
    return build_tokenizer(Vocabulary(
        bpe, tokens, _list(meta, "token_type", int, where),
        [] if bpe else _list(meta, "scores", float, where), [(m[0], m[1]) for m in merges], pre,
        ids["bos"], ids["eos"], ids["unknown"] if bpe or ids["unknown"] is not None else 0,
        bool(meta.get("tokenizer.ggml.add_bos_token", default_bos)),
        bool(meta.get("tokenizer.ggml.add_space_prefix", True)),
        template if isinstance(template, str) else None), where)


def _list(meta: dict[str, Any], name: str, kind: type, where: str) -> list[Any]:
    value = meta.get(f"tokenizer.ggml.{name}")
    if not isinstance(value, list) or not all(type(v) is kind for v in value):
        raise TokenizerError(f"{where}: tokenizer.ggml.{name} is missing or not a list of "
                             f"{kind.__name__}; the file holds no complete tokenizer")
    return value
