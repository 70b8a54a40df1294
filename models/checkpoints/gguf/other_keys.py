"""Says for each key of GGUF without the architecture's prefix whether it is used, changes nothing,
or is refused. docs/file-formats.md shows the tables below."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from core.errors import ConfigError, TokenizerError
from core.reading import shown

_IDS = "tokenizer.ggml.*_token_id"
USED = {
    "general.architecture": "the family",
    "general.type": "it must be `model`",
    "general.quantization_version": "it must be 2 where there are blocks",
    "general.alignment": "tensors begin at multiples of it; 32 unless given",
    "general.sampling.*": "[below](#sampling)",
    "split.no": "the part, from 0",
    "split.count": "the parts",
    "split.tensors.count": "the tensors of all parts",
    "tokenizer.ggml.model": "`llama` (SentencePiece), `gpt2` (byte-level BPE) or none",
    "tokenizer.ggml.pre": "[the split](#pre-tokenizers), for `gpt2`",
    "tokenizer.ggml.tokens": "the text of each id",
    "tokenizer.ggml.token_type": "the kind of each id",
    "tokenizer.ggml.scores": "the score of each id, for `llama`",
    "tokenizer.ggml.merges": "the merges, for `gpt2`",
    "tokenizer.ggml.bos_token_id": "BOS; 1 for `llama` unless given",
    "tokenizer.ggml.eos_token_id": "EOS, a stop id; 2 for `llama` unless given",
    "tokenizer.ggml.eot_token_id": "EOT, a stop id",
    "tokenizer.ggml.eom_token_id": "EOM, a stop id",
    "tokenizer.ggml.unknown_token_id": "the unknown token; 0 for `llama` unless given",
    "tokenizer.ggml.add_bos_token": "true for `llama` unless given, for `gpt2` as its split says",
    "tokenizer.ggml.add_eos_token": "false unless given",
    "tokenizer.ggml.add_space_prefix": "true unless given, for `llama`",
    "tokenizer.chat_template": "the chat template",
    "tokenizer.chat_template.*": "a chat template with a name",
    "tokenizer.chat_templates": "the names",
}
HARMLESS = {
    "general.*": "it describes the file",
    _IDS: "padding, masks and the like, which no text needs",
    "tokenizer.ggml.token_type_count": "it is for embeddings of texts",
    "tokenizer.huggingface.json": "the table counts",
    "tokenizer.rwkv.world": "as above",
    "imatrix.*": "it tells how the file was quantised",
}
#: key -> the value that changes nothing, and what another one asks for
ONLY: Mapping[str, tuple[object, str, str]] = {
    "tokenizer.ggml.add_sep_token": (False, "false", "it puts a separator behind a text"),
    "tokenizer.ggml.remove_extra_whitespaces": (
        False, "false", "it joins spaces before a text is split"),
    "tokenizer.ggml.precompiled_charsmap": (
        [], "empty", "it rewrites characters before a text is split"),
}
#: keys of any value that belong to files or families of other kinds
REFUSED = {
    "adapter.*": "it belongs to a LoRA adapter",
    "clip.*": "it belongs to an encoder of images or sounds",
    "diffusion.*": "it makes another kind of model",
    "xielu.*": "it replaces SwiGLU",
}


def check_others(metadata: Mapping[str, Any], where: str) -> None:
    """Raise ConfigError for a key of another kind of model; TokenizerError for one that changes ids
    and is not used."""
    for key in metadata:
        for pattern, does in REFUSED.items():
            if fnmatchcase(key, pattern):
                raise ConfigError(f"{where}: {key} is {shown(metadata[key])}, expected a language "
                                  f"model's file without it: {does}")
        if key in ONLY:
            neutral, said, does = ONLY[key]
            if metadata[key] != neutral:
                raise TokenizerError(f"{where}: {key} is {shown(metadata[key])}, only {said} is "
                                     f"supported: {does}")
        elif key.startswith("tokenizer.") and not any(
                fnmatchcase(key, pattern) for pattern in (*USED, *HARMLESS)):
            raise TokenizerError(f"{where}: {key} is {shown(metadata[key])}; it changes ids in "
                                 "ways that are not known here. Take the model as a Hugging Face "
                                 "folder, or a newer kernelyard")
