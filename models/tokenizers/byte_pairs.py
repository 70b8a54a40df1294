"""Writes tokenizer.json of byte-level BPE vocabularies, and reads it back."""

from __future__ import annotations

import json
from typing import Any

from core.errors import TokenizerError
from core.reading import parse_json
from models.tokenizers.added import AddedToken
from models.tokenizers.byte_fallback import from_byte_fallback, is_sentencepiece
from models.tokenizers.post_processor import frame, frame_of
from models.tokenizers.pretokenizers import find_pretokenizer, name_of, pretokenizer_names
from models.tokenizers.vocabulary import TokenType, Vocabulary


def to_json(v: Vocabulary) -> str:
    """Write what the published tokenizer.json of Llama-3 or Qwen2 would hold. Every token is in
    the model's vocabulary: the library numbers an added token anew that is not."""
    how = find_pretokenizer(v.pre, "the vocabulary")
    ends = [(v.tokens[i], i) if add and i is not None else None
            for add, i in ((v.add_bos, v.bos_id), (v.add_eos, v.eos_id))]
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, **t.as_json()} for i, t in v.added_tokens().items()],
        "normalizer": how.normalizer, "pre_tokenizer": how.block,
        "post_processor": {"type": "Sequence", "processors": [
            _byte_level(trim_offsets=False), *frame(*ends)]},
        "decoder": _byte_level(),
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": how.ignore_merges,
                  "vocab": {t: i for i, t in enumerate(v.tokens)
                            if v.types[i] != TokenType.UNUSED and t},
                  "merges": [list(m) for m in v.merges]}}, ensure_ascii=False)


def _byte_level(*, trim_offsets: bool = True, use_regex: bool = True) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": trim_offsets,
            "use_regex": use_regex}


def from_json(text: str, where: str) -> Vocabulary:
    """Read tokens, merges and which pre-tokenizer; pieces and scores where the file is of a
    SentencePiece vocabulary. Raises TokenizerError for a pre-tokenizer that is unknown."""
    data = parse_json(text)
    model = data["model"]
    bos, eos = frame_of(data.get("post_processor"))
    added = {e["id"]: AddedToken.parse(e, where) for e in data.get("added_tokens", [])}
    if model.get("type") == "BPE" and is_sentencepiece(data):
        v = from_byte_fallback(data, added)
    else:
        pre = name_of(data)
        if model.get("type") != "BPE" or pre is None:
            raise TokenizerError(f"{where}: tokenizer.json is a {model.get('type')} whose "
                                 "pre-tokenizer has no name in GGUF that is known here "
                                 f"({', '.join(pretokenizer_names())}); export to hf instead")
        v = _byte_pairs(model, added, pre)
    v.added = {i: t for i, t in added.items() if not t.plain}
    v.add_bos, v.add_eos = bos is not None, eos is not None
    v.bos_id = v.tokens.index(bos) if bos else None
    v.eos_id = v.tokens.index(eos) if eos else None
    return v


def _byte_pairs(model: dict[str, Any], added: dict[int, AddedToken], pre: str) -> Vocabulary:
    ids = {**model["vocab"], **{t.text: i for i, t in added.items()}}
    count = max(ids.values(), default=-1) + 1
    tokens, types = [f"[PAD{i}]" for i in range(count)], [int(TokenType.UNUSED)] * count
    for token, i in ids.items():
        tokens[i], types[i] = token, int(TokenType.NORMAL)
    for i, entry in added.items():
        types[i] = int(TokenType.CONTROL if entry.special else TokenType.USER_DEFINED)
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ", 1)) for m in model["merges"]]
    return Vocabulary(True, tokens, types, merges=[(a, b) for a, b in merges], pre=pre)
