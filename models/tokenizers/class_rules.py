"""Applies what `tokenizer_class` changes of a tokenizer.json: transformers 5 makes some tokenizers
anew, and looks at few of its parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from core.reading import shown
from models.json_reader import ConfigReader
from models.tokenizers.pretokenizers import find_pretokenizer

#: classes that leave tokenizer.json as it is, or read tokenizer.model as we do
_PLAIN = ("PreTrainedTokenizer", "TokenizersBackend", "LlamaTokenizer", "CodeLlamaTokenizer",
          "GPT2Tokenizer")
_QWEN2 = ("Qwen2Tokenizer", "Qwen2TokenizerFast")
PREFIX = "add_prefix_space"


def apply_class(data: dict[str, Any], settings: ConfigReader) -> tuple[bool, list[str]]:
    """Apply `add_prefix_space` to `data`, a tokenizer.json, where its class reads that key. Return
    whether it was changed, and notes on what the class would do otherwise."""
    asked = settings.get(PREFIX, bool, None)
    levels = [b for b in _blocks(data.get("pre_tokenizer")) if b.get("type") == "ByteLevel"]
    differ = asked is not None and any(b.get(PREFIX, False) != asked for b in levels)
    if settings.data.get("tokenizer_class") not in _QWEN2:
        return False, [*note_class(settings, "tokenizer.json"), *([
            f"{settings.where}: {PREFIX} is {str(asked).lower()}, and tokenizer.json says "
            "otherwise; tokenizer.json counts, as in transformers 5 (transformers 4 follows the "
            "key)"] if differ else [])]
    for block in levels if differ else ():
        block[PREFIX] = asked
    known = find_pretokenizer("qwen2", settings.where)
    same = data.get("normalizer") == known.normalizer and \
        _patterns(data.get("pre_tokenizer")) == _patterns(known.block) and \
        _is_plain(data.get("model"))
    return differ, [] if same else [
        f"{settings.where}: tokenizer_class is Qwen2's, and tokenizer.json prepares texts "
        "otherwise; tokenizer.json counts, as in transformers 4 (transformers 5 makes Qwen2's)"]


def note_class(settings: ConfigReader, file: str) -> list[str]:
    """Note that transformers may read `file` otherwise, by its class. Raises ConfigError."""
    named = settings.get("tokenizer_class", str, _PLAIN[0])
    return [] if named.removesuffix("Fast") in _PLAIN else [
        f"{settings.where}: tokenizer_class is {shown(named)}, which may split texts otherwise in "
        f"transformers; {file} counts"]


def _blocks(block: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - JSON
    """Yield a pre-tokenizer, or those that it is a sequence of."""
    if isinstance(block, dict):
        yield block
        for part in block.get("pretokenizers") or ():
            yield from _blocks(part)


def _patterns(block: Any) -> list[object]:  # noqa: ANN401 - JSON
    return [b.get("pattern") for b in _blocks(block) if b.get("type") == "Split"]


def _is_plain(model: Any) -> bool:  # noqa: ANN401 - JSON
    """Return whether a model is byte-level BPE as Qwen2's class makes it."""
    odd = ("end_of_word_suffix", "continuing_subword_prefix", "ignore_merges")
    return model.get("type", "BPE") == "BPE" and not any(model.get(key) for key in odd)
