"""Tells how byte-level BPE splits a text before merging, by GGUF's names.

GGUF stores a name only (`tokenizer.ggml.pre`); llama.cpp's table (src/llama-vocab.cpp) says which
names split alike. The expressions are those of the published tokenizer.json files. A plugin adds
names with the hook `register_pretokenizers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import PluginError, TokenizerError
from models.tokenizers.refused_names import REFUSED


@dataclass(frozen=True)
class PreTokenizer:
    """Holds what a name stands for, in the JSON of `tokenizers`.

    block          the pre-tokenizer
    normalizer     what the published tokenizer does to a text first
    ignore_merges  a word that is a token stays whole, whatever its merges would give
    add_bos        a BOS is put in front where the file does not say
    """

    block: Mapping[str, Any]
    normalizer: Mapping[str, Any] | None = None
    ignore_merges: bool = False
    add_bos: bool = False


BUILT_IN: dict[str, PreTokenizer] = {}
_OFFERED: dict[str, PreTokenizer] = {}


def use_pretokenizers(offered: Mapping[str, object]) -> None:
    """Add what plugins register: a PreTokenizer, or the JSON of one's block alone. Raises
    PluginError for anything else."""
    for name, thing in offered.items():
        if isinstance(thing, Mapping) and "type" in thing:
            thing = PreTokenizer(thing)
        if not isinstance(thing, PreTokenizer):
            raise PluginError(f"register_pretokenizers: {name!r} is {str(thing)[:80]!r}, expected "
                              "a PreTokenizer, or a pre-tokenizer of tokenizer.json with a `type`")
        _OFFERED[name] = thing


def _known() -> dict[str, PreTokenizer]:
    return {**_OFFERED, **BUILT_IN}


def pretokenizer_names() -> list[str]:
    """Return every known name."""
    return sorted(_known())


def find_pretokenizer(name: str, where: str) -> PreTokenizer:
    """Raises TokenizerError listing the names."""
    if name not in _known():
        why = f"is not supported: {REFUSED[name]}" if name in REFUSED else "is unknown"
        raise TokenizerError(
            f"{where}: pre-tokenizer {name!r} {why}; expected one of "
            f"{', '.join(pretokenizer_names())}; another one would split text in ways that the "
            "model has not seen. A plugin can add it: hook register_pretokenizers")
    return _known()[name]


def name_of(data: Mapping[str, Any]) -> str | None:
    """Return the name for a tokenizer.json: one that splits alike and, if any, agrees in all."""
    block, known = _plain(data.get("pre_tokenizer")), {**BUILT_IN, **_OFFERED}
    rest = _plain(data.get("normalizer")), bool(data["model"].get("ignore_merges", False))
    alike = [name for name, how in known.items() if _plain(how.block) == block]
    exact = [name for name in alike
             if rest == (_plain(known[name].normalizer), known[name].ignore_merges)]
    return next(iter([*exact, *alike]), None)


def _plain(block: Any) -> object:  # noqa: ANN401 - JSON
    """Return the JSON without nesting and without what changes offsets only."""
    if not block:
        return []
    parts = block.get("pretokenizers", block.get("normalizers"))
    if parts is not None:
        plain = [_plain(part) for part in parts]
        return [one for part in plain for one in (part if isinstance(part, list) else [part])]
    kept = {k: v for k, v in block.items() if k != "trim_offsets"}
    if block["type"] == "ByteLevel":
        kept.setdefault("use_regex", True)
    if block["type"] == "Split" and (block["behavior"], block["invert"]) == ("Removed", True):
        # what the expression does not match is dropped: alike, as these match every character
        kept.update(behavior="Isolated", invert=False)
    return [kept]


def _split(*patterns: str) -> dict[str, Any]:
    """Split by expressions, one after another, and write bytes as letters."""
    return _sequence(*({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
                        "invert": False} for pattern in patterns), _bytes(regex=False))


def _sequence(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(parts)}


def _bytes(*, regex: bool) -> dict[str, Any]:
    """Bytes as letters; with `regex`, words are split by GPT-2's expression first."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
            "use_regex": regex}


_DIGITS = {"type": "Digits", "individual_digits": True}
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LETTERS = r"|[^\r\n\p{L}\p{N}]?\p{L}+|"
_SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*" + _SPACES
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_CASED = (f"{_LEAD}{_UPPER}*{_LOWER}+", f"{_LEAD}{_UPPER}+{_LOWER}*")
_REST_SLASH = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _SPACES
_PUNCTUATED = r" ?[^(\s|.,!?…。，、।۔،)]+"
_CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_LLAMA3 = _split(_ENDINGS + _LETTERS + r"\p{N}{1,3}" + _REST)
_QWEN2 = _split(_ENDINGS + _LETTERS + r"\p{N}" + _REST)
_QWEN35 = _split(_ENDINGS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
                 r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + _SPACES)
_GPT4O = _split("|".join(f"{cased}{_ENDINGS}?" for cased in _CASED) + r"|\p{N}{1,3}" + _REST_SLASH)



def _add(names: str, block: Mapping[str, Any], **how: Any) -> None:  # noqa: ANN401 - fields
    BUILT_IN.update(dict.fromkeys(names.split(), PreTokenizer(block, **how)))


_add("llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", _LLAMA3,
     ignore_merges=True, add_bos=True)
_add("smaug-bpe dbrx", _LLAMA3)
_add("qwen2 deepseek-r1-qwen megrez kormo f2llmv2", _QWEN2, normalizer={"type": "NFC"})
_add("qwen35", _QWEN35, normalizer={"type": "NFC"})
_add("smollm starcoder refact command-r codeshell exaone minerva-7b",
     _sequence(_DIGITS, _bytes(regex=True)))
_add("gpt-2 phi-2 mpt olmo jais trillion gigachat a.x-4.0 mellum exaone4 granite-docling",
     _bytes(regex=True))
_add("gpt-4o llama4 kanana2 talkie", _GPT4O)
_add("falcon", _sequence({"type": "Punctuation", "behavior": "Contiguous"}, _bytes(regex=True),
                         {"type": "Digits", "individual_digits": False},
                         *_split("[0-9][0-9][0-9]")["pretokenizers"][:-1]))
_add("tekken", _split("|".join(_CASED) + r"|\p{N}" + _REST_SLASH), ignore_merges=True,
     add_bos=True)
_add("seed-coder", _split(
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\r\n]+"
    "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"))
_add("deepseek-v3 hunyuan-dense", _split(
    r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|""" + "[^\r\n"
    r"\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+" + "[\r\n]*|\\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"))
_add("deepseek-coder", _sequence(
    *_split("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK)["pretokenizers"][:-1], _DIGITS,
    _bytes(regex=False)))
_add("viking", _sequence(
    *_split(_PUNCTUATED)["pretokenizers"][:-1], _DIGITS, _bytes(regex=False)))
_add("bloom poro-chat gpt3-finnish", _split(_PUNCTUATED))
