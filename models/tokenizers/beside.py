"""Finds the tokenizer beside a weights file that brings none itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.tokenizers.base import LLAMA, NoTokenizer, Tokenizer, load_tokenizer
from models.tokenizers.build import build_tokenizer
from models.tokenizers.llama2c_bin import read_tokenizer_bin
from models.tokenizers.settings import read_settings


def load_beside(path: Path, names: Sequence[str]) -> Tokenizer:
    """Load the first of `names` in the folder of `path`, a NoTokenizer if none is there."""
    for name in names:
        file = path.parent / name
        if file.exists():
            if name == "tokenizer.bin":
                return load_tokenizer_bin(file)
            return load_tokenizer(path.parent, name)
    return NoTokenizer(f"{path} holds no tokenizer, and {path.parent} has none of "
                       f"{', '.join(names)}; copy the one there that the model came with")


def load_tokenizer_bin(file: Path) -> Tokenizer:
    """Load llama2.c's tokenizer.bin; tokenizer_config.json beside it says what it cannot: `legacy`,
    `add_bos_token` and `add_eos_token`. Raises TokenizerError."""
    v, (settings, _) = read_tokenizer_bin(file), read_settings(file.parent)
    v.add_bos = settings.get("add_bos_token", bool, v.add_bos)
    v.add_eos = settings.get("add_eos_token", bool, v.add_eos)
    v.legacy = settings.get("legacy", bool, settings.data.get("tokenizer_class") not in LLAMA)
    return build_tokenizer(v, str(file))
