"""Writes the tokenizer files that an exported model needs beside its weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from core.errors import TokenizerError
from models.checkpoints.base import Checkpoint
from models.tokenizers.base import NoTokenizer, Tokenizer, load_tokenizer
from models.tokenizers.build import build_tokenizer, vocabulary_for, vocabulary_of
from models.tokenizers.chat_template import DEFAULT
from models.tokenizers.check import check_same
from models.tokenizers.json_tokenizer import JsonTokenizer
from models.tokenizers.llama2c_bin import SPECIAL, read_tokenizer_bin, tokenizer_bin
from models.tokenizers.sentencepiece_model import to_sentencepiece
from models.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer
from models.tokenizers.vocabulary import TokenType, Vocabulary

_CONFIG = "tokenizer_config.json"
_COPIED = ("tokenizer.json", "tokenizer.model", _CONFIG, "special_tokens_map.json",
           "chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja",
           "added_tokens.json", "vocab.json", "merges.txt", "tekken.json",
           "generation_config.json")


def copy_tokenizer_files(checkpoint: Checkpoint, folder: Path) -> None:
    """Copy a Hugging Face folder's tokenizer files as they are, with generation_config.json, else
    `write_tokenizer_files`."""
    from_folder = (checkpoint.path / "config.json").exists()
    if not from_folder:
        write_tokenizer_files(checkpoint, folder)
    for pattern in _COPIED if from_folder else ():
        for file in checkpoint.path.glob(pattern):
            to = folder / file.relative_to(checkpoint.path)
            to.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, to)


def write_tokenizer_files(checkpoint: Checkpoint, folder: Path) -> None:
    """Write tokenizer.model for a SentencePiece vocabulary, tokenizer.json for byte-level BPE,
    never both (the readers of bare weights tell models apart by it), and tokenizer_config.json;
    nothing for a model without tokenizer. Raises TokenizerError for a tokenizer of another kind,
    and where the files written do not give equal ids."""
    tokenizer, where = checkpoint.tokenizer, str(checkpoint.path)
    if isinstance(tokenizer, NoTokenizer):
        return
    v = vocabulary_of(tokenizer, where)
    if isinstance(tokenizer, JsonTokenizer) and v.bpe:
        (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    else:
        (folder / "tokenizer.model").write_bytes(
            tokenizer.processor.serialized_model_proto()
            if isinstance(tokenizer, SentencePieceTokenizer) else to_sentencepiece(v))
    (folder / _CONFIG).write_text(json.dumps(_settings(tokenizer, v), indent=2) + "\n",
                                  encoding="utf-8")
    check_same(load_tokenizer(folder), tokenizer, v, where, "the folder written")


def _settings(tokenizer: Tokenizer, v: Vocabulary) -> dict[str, object]:
    """Return what the source's files said, with all that this format leaves to the settings."""
    said = dict(tokenizer.settings.data) if isinstance(
        tokenizer, (JsonTokenizer, SentencePieceTokenizer)) else {}
    templates = v.templates.get(DEFAULT) if set(v.templates) <= {DEFAULT} else [
        {"name": name, "template": text} for name, text in v.templates.items()]
    texts = dict(v.variables)
    if v.unk_id is not None and v.types[v.unk_id] == TokenType.NORMAL:
        del texts["unk_token"]  # the format would make it special
    named = {**texts, "chat_template": templates,
             "added_tokens_decoder": {str(i): t.as_json() for i, t in v.added_tokens().items()}}
    if v.bpe:
        return {"tokenizer_class": "PreTrainedTokenizerFast", **said, **named}
    return {"tokenizer_class": "LlamaTokenizer", **said, **named, "add_bos_token": v.add_bos,
            "add_eos_token": v.add_eos, "legacy": v.legacy}


def write_tokenizer_bin(checkpoint: Checkpoint, folder: Path) -> None:
    """Write llama2.c's tokenizer.bin. It has no place for `legacy`, and for whether BOS and EOS are
    added: tokenizer_config.json beside it says so.

    Raises TokenizerError for a tokenizer that it cannot hold, and where what was written does not
    give equal ids."""
    if isinstance(checkpoint.tokenizer, NoTokenizer):
        return
    where = str(checkpoint.path)
    v = vocabulary_for(checkpoint.tokenizer, where, "SentencePiece")
    if v.bpe:
        raise TokenizerError(f"{where}: llama2.c runs SentencePiece vocabularies only; export to "
                             "kuiper, gguf or hf instead")
    fixed = {0: "<unk>", **SPECIAL}
    if (v.unk_id, v.bos_id, v.eos_id) != tuple(fixed) or v.tokens[:3] != [*fixed.values()]:
        raise TokenizerError(f"{where}: llama2.c's tokenizer.bin has <unk>, <s> and </s> as tokens "
                             f"0, 1 and 2, the model has {', '.join(map(repr, v.tokens[:3]))} "
                             "there; export to gguf or hf instead")
    lost = [t.text for i, t in v.added_tokens().items() if i not in fixed]
    if lost:
        raise TokenizerError(f"{where}: llama2.c's tokenizer.bin cannot say that "
                             f"{', '.join(map(repr, lost[:3]))} and so on are special or added "
                             f"tokens ({len(lost)}); export to gguf or hf instead")
    rows = checkpoint.config.data.get("vocab_size", len(v.tokens))  # as many as run.c reads
    v.tokens, v.scores, v.types = v.tokens[:rows], v.scores[:rows], v.types[:rows]
    file = folder / "tokenizer.bin"
    file.write_bytes(tokenizer_bin(v))
    written = replace(read_tokenizer_bin(file), legacy=v.legacy, add_bos=v.add_bos,
                      add_eos=v.add_eos)
    check_same(build_tokenizer(written, where), checkpoint.tokenizer, v, where,
               "llama2.c's tokenizer.bin")
