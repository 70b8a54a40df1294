"""Finds the tokenizer beside a weights file that brings none itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.tokenizers.base import NoTokenizer, Tokenizer, load_tokenizer
from models.tokenizers.build import build_tokenizer
from models.tokenizers.llama2c_bin import read_tokenizer_bin


def load_beside(path: Path, names: Sequence[str]) -> Tokenizer:
    """Load the first of `names` in the folder of `path`, a NoTokenizer if none is there."""
    for name in names:
        file = path.parent / name
        if file.exists():
            if name == "tokenizer.bin":
                return build_tokenizer(read_tokenizer_bin(file), str(file))
            return load_tokenizer(path.parent, name)
    return NoTokenizer(f"{path} holds no tokenizer, and {path.parent} has none of "
                       f"{', '.join(names)}; copy the one there that the model came with")
