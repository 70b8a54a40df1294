"""tokenizer.json of byte-level BPE vocabularies: written for `tokenizers`, and read back."""

from __future__ import annotations

import json
from typing import Any

from core.errors import TokenizerError
from models.tokenizers.byte_fallback import from_byte_fallback, is_sentencepiece
from models.tokenizers.vocabulary import PRE_TOKENIZERS, TokenType, Vocabulary

_SPECIAL = (TokenType.CONTROL, TokenType.USER_DEFINED)


def to_json(v: Vocabulary) -> str:
    """What the published tokenizer.json of Llama-3 or Qwen2 would hold."""
    added = [{"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": v.types[i] == TokenType.CONTROL}
             for i, token in enumerate(v.tokens) if v.types[i] in _SPECIAL]
    held = {entry["id"] for entry in added}
    processors: list[dict[str, Any]] = [_byte_level(trim_offsets=False)]
    if v.add_bos and v.bos_id is not None:
        bos = v.tokens[v.bos_id]
        sequence = [{"SpecialToken": {"id": bos, "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}}]
        processors.append({"type": "TemplateProcessing", "single": sequence,
                           "pair": [*sequence, {"Sequence": {"id": "B", "type_id": 1}}],
                           "special_tokens": {bos: {"id": bos, "ids": [v.bos_id],
                                                    "tokens": [bos]}}})
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        # Qwen's published tokenizer composes characters first; Llama-3's does not
        "normalizer": {"type": "NFC"} if v.pre == "qwen2" else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": PRE_TOKENIZERS[v.pre]},
             "behavior": "Isolated", "invert": False}, _byte_level(use_regex=False)]},
        "post_processor": {"type": "Sequence", "processors": processors},
        "decoder": _byte_level(),
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False,
                  # Llama-3 takes a word that is a token as it is, whatever its merges would give
                  "ignore_merges": v.pre == "llama-bpe",
                  "vocab": {t: i for i, t in enumerate(v.tokens) if i not in held},
                  "merges": [list(m) for m in v.merges]}}, ensure_ascii=False)


def _byte_level(*, trim_offsets: bool = True, use_regex: bool = True) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": trim_offsets,
            "use_regex": use_regex}


def from_json(text: str, where: str) -> Vocabulary:
    """Tokens, merges and which pre-tokenizer; pieces and scores where the file is of a
    SentencePiece vocabulary. Raises TokenizerError for a pre-tokenizer that is unknown."""
    data = json.loads(text)
    model = data["model"]
    bos = _template_bos(data.get("post_processor"))
    if model.get("type") == "BPE" and is_sentencepiece(data):
        v = from_byte_fallback(data)
        v.bos_id, v.add_bos = (v.tokens.index(bos) if bos else None), bos is not None
        return v
    pre = _pre_tokenizer(data.get("pre_tokenizer"))
    if model.get("type") != "BPE" or pre is None:
        raise TokenizerError(f"{where}: tokenizer.json is a {model.get('type')} whose "
                             f"pre-tokenizer is none of {', '.join(PRE_TOKENIZERS)}; this format "
                             "can hold only those")
    ids = dict(model["vocab"])
    kinds = dict.fromkeys(ids.values(), int(TokenType.NORMAL))
    for entry in data.get("added_tokens", []):
        ids[entry["content"]] = entry["id"]
        kinds[entry["id"]] = int(TokenType.CONTROL if entry["special"] else TokenType.USER_DEFINED)
    count = max(ids.values(), default=-1) + 1
    tokens = [f"[PAD{i}]" for i in range(count)]
    for token, i in ids.items():
        tokens[i] = token
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ", 1)) for m in model["merges"]]
    return Vocabulary(True, tokens, [kinds.get(i, int(TokenType.UNUSED)) for i in range(count)],
                      merges=[(a, b) for a, b in merges], pre=pre,
                      bos_id=ids.get(bos) if bos else None, add_bos=bos is not None)


def _pre_tokenizer(block: Any) -> str | None:  # noqa: ANN401 - JSON
    parts = (block or {}).get("pretokenizers", [block])
    found = {p["pattern"].get("Regex") for p in parts if p and p.get("type") == "Split"}
    return next((name for name, regex in PRE_TOKENIZERS.items() if found == {regex}), None)


def _template_bos(block: Any) -> str | None:  # noqa: ANN401 - JSON
    """The token that the post-processor puts in front, if it does."""
    for part in (block or {}).get("processors", [block]):
        if part and part.get("type") == "TemplateProcessing":
            first = part["single"][0]
            if "SpecialToken" in first:
                return str(first["SpecialToken"]["id"])
    return None
