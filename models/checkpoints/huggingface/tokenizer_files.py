"""Writes the tokenizer files that an exported model needs beside its weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from core.errors import TokenizerError
from models.checkpoints.base import Checkpoint
from models.tokenizers.base import JsonTokenizer, SentencePieceTokenizer
from models.tokenizers.build import vocabulary_of
from models.tokenizers.llama2c_bin import tokenizer_bin
from models.tokenizers.sentencepiece_model import to_sentencepiece

_CONFIG = "tokenizer_config.json"
_COPIED = ("tokenizer.json", "tokenizer.model", _CONFIG, "special_tokens_map.json",
           "chat_template.jinja", "added_tokens.json", "vocab.json", "merges.txt",
           "generation_config.json")


def copy_tokenizer_files(checkpoint: Checkpoint, folder: Path) -> None:
    """Copy a Hugging Face folder's tokenizer files as they are, with generation_config.json, else
    `write_tokenizer_files`."""
    from_folder = (checkpoint.path / "config.json").exists()
    if not from_folder:
        write_tokenizer_files(checkpoint, folder)
    for name in _COPIED if from_folder else ():
        if (checkpoint.path / name).exists():
            shutil.copyfile(checkpoint.path / name, folder / name)


def write_tokenizer_files(checkpoint: Checkpoint, folder: Path) -> None:
    """Write tokenizer.model for a SentencePiece vocabulary, tokenizer.json for byte-level BPE,
    never both (the readers of bare weights tell models apart by it), and tokenizer_config.json.
    Raises TokenizerError for a tokenizer of another kind."""
    tokenizer, there = checkpoint.tokenizer, checkpoint.path
    v = vocabulary_of(tokenizer, str(there))
    if isinstance(tokenizer, JsonTokenizer) and v.bpe:
        (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    else:
        (folder / "tokenizer.model").write_bytes(
            tokenizer.processor.serialized_model_proto()
            if isinstance(tokenizer, SentencePieceTokenizer) else to_sentencepiece(v))
    if (there / _CONFIG).exists():
        shutil.copyfile(there / _CONFIG, folder / _CONFIG)
        return
    settings: dict[str, object] = {
        **v.variables, "add_bos_token": v.add_bos, "chat_template": v.template,
        "tokenizer_class": "PreTrainedTokenizerFast" if v.bpe else "LlamaTokenizer"}
    (folder / _CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def write_tokenizer_bin(checkpoint: Checkpoint, folder: Path) -> None:
    """Write llama2.c's tokenizer.bin. Raises TokenizerError for byte-level BPE, which it cannot
    hold."""
    v = vocabulary_of(checkpoint.tokenizer, str(checkpoint.path))
    if v.bpe:
        raise TokenizerError(f"{checkpoint.path}: llama2.c runs SentencePiece vocabularies only; "
                             "export to kuiper, gguf or hf instead")
    (folder / "tokenizer.bin").write_bytes(tokenizer_bin(v))
