"""Writes GGUF with the `gguf` package: F32, F16, BF16, Q8_0 or Q4_0, with tokenizer and template.

Norms and biases are F32 as llama.cpp expects; a matrix whose rows are no multiple of 32 stays F16
where integers were asked for, as in llama-quantize. Matrices that `--keep` names keep their dtype.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import ConfigError, TokenizerError
from core.plan.weights import Progress
from core.tensor.dtype import as_dtype
from core.tensor.tensor import Array
from models.checkpoints.base import Checkpoint
from models.checkpoints.gguf.config import rope_factors
from models.checkpoints.gguf.names import ROPE_FACTORS, to_gguf
from models.checkpoints.gguf.package import load_gguf
from models.checkpoints.gguf.sampling import write_sampling
from models.checkpoints.gguf.tokenizer import ADDED, LEGACY, STOPS
from models.checkpoints.gguf.yarn import YARN, write_yarn
from models.checkpoints.quantization import Quantization
from models.checkpoints.source import Source
from models.tokenizers.base import NoTokenizer
from models.tokenizers.build import vocabulary_for
from models.tokenizers.vocabulary import TokenType

TYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16", "int8": "Q8_0", "int4": "Q4_0"}


def write_gguf(source: Source, path: Path, kind: str, progress: Progress,
               quantization: Quantization | None = None) -> None:
    """Write a GGUF file; kind: a key of TYPES; for int8 and int4, `quantization` may say which
    matrices.

    Raises ConfigError for an architecture that GGUF names differently or a rope type that is not
    written, TokenizerError for a tokenizer that it cannot hold."""
    gguf = load_gguf()
    family = source.architecture
    if family.gguf_name is None:
        raise ConfigError(f"{family.name} has no name in GGUF; export to hf instead")
    if source.config.rope.type not in ("default", "linear", "llama3", YARN):
        raise ConfigError(f"rope {source.config.rope.type!r} is not written to GGUF; export to hf "
                          "instead")
    writer = gguf.GGUFWriter(path, family.gguf_name)
    _add_config(writer, gguf, source)
    add_tokenizer(writer, source.checkpoint, source.config.vocab_size)
    write_sampling(writer, source.checkpoint.generation)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{TYPES[kind]}" if kind != "f32" else
                                            "ALL_F32"])
    chosen = gguf_matrices(source, quantization)
    plan: list[tuple[str, Any, int]] = []
    if source.config.rope.type == "llama3":
        factors = rope_factors(source.config.rope, source.config.head_dim)
        writer.add_tensor_info(ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
    for name in source.names:
        rows, *columns = source.shape(name)
        stored = _stored(source, name, kind if name in chosen else None, gguf)
        sample = _encode(np.zeros((1, *columns), np.float32), stored, gguf)
        shape, nbytes = (rows, *sample.shape[1:]), sample.nbytes * rows
        writer.add_tensor_info(to_gguf(name, family), shape, sample.dtype, nbytes, raw_dtype=stored)
        plan.append((name, stored, nbytes))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if source.config.rope.type == "llama3":
        writer.write_tensor_data(factors)
    total, done = sum(nbytes for *_, nbytes in plan), 0
    for name, stored, nbytes in plan:
        writer.write_tensor_data(_encode(source.array(name, pairs=family.gguf_pairs), stored, gguf))
        done += nbytes
        progress(f"writing {path.name}", done, total)
    writer.close()


def gguf_matrices(source: Source, quantization: Quantization | None) -> list[str]:
    """Return the matrices written in the type asked for: every matrix, the embedding too, or those
    chosen."""
    names = [n for n in source.names if len(source.shape(n)) > 1]
    return names if quantization is None else quantization.choose(names)


def _stored(source: Source, name: str, kind: str | None, gguf: Any) -> Any:  # noqa: ANN401 - a GGMLQuantizationType
    types, shape = gguf.GGMLQuantizationType, source.shape(name)
    if len(shape) == 1:
        return types.F32
    if kind is None:
        return types[TYPES[as_dtype(source.dtype(name)).short]]
    if kind in ("int8", "int4") and shape[-1] % 32:
        return types.F16
    return types[TYPES[kind]]


def _encode(array: Array, stored: Any, gguf: Any) -> Array:  # noqa: ANN401 - as above
    encoded: Array = gguf.quants.quantize(np.ascontiguousarray(array, np.float32), stored)
    return encoded


def _add_config(writer: Any, gguf: Any, source: Source) -> None:  # noqa: ANN401 - gguf's classes
    c = source.config
    writer.add_name(source.checkpoint.hub_id or source.checkpoint.path.stem)
    writer.add_context_length(c.max_positions)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.layers)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.heads)
    writer.add_head_count_kv(c.kv_heads)
    writer.add_key_length(c.head_dim)
    writer.add_value_length(c.head_dim)
    writer.add_rope_dimension_count(c.head_dim)
    writer.add_layer_norm_rms_eps(c.norm_eps)
    writer.add_rope_freq_base(c.rope.theta)
    writer.add_vocab_size(c.vocab_size)
    if c.rope.type == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(c.rope.numbers["factor"])
    if c.rope.type == YARN:
        write_yarn(writer, gguf, c.rope)


def add_tokenizer(writer: Any, checkpoint: Checkpoint, size: int) -> None:  # noqa: ANN401
    if isinstance(checkpoint.tokenizer, NoTokenizer):
        writer.add_tokenizer_model("none")
        return
    where = str(checkpoint.path)
    v = vocabulary_for(checkpoint.tokenizer, where, "GGUF")
    if len(v.tokens) > size:
        raise TokenizerError(f"{where}: the tokenizer has {len(v.tokens)} ids and the embedding "
                             f"{size} rows, which GGUF cannot hold; export to hf instead")
    padding = range(len(v.tokens), size)  # models round their vocabulary up
    writer.add_tokenizer_model("gpt2" if v.bpe else "llama")
    writer.add_tokenizer_pre(v.pre if v.bpe else "default")
    writer.add_token_list([*v.tokens, *(f"[PAD{i}]" for i in padding)])
    writer.add_token_types([*v.types, *(int(TokenType.UNUSED) for _ in padding)])
    if v.bpe:
        writer.add_token_merges([f"{a} {b}" for a, b in v.merges])
    else:
        writer.add_token_scores([*v.scores, *(-1e4 for _ in padding)])
        writer.add_add_space_prefix(v.add_space_prefix)
        writer.add_bool(LEGACY, v.legacy)
    if v.added:
        writer.add_string(ADDED, json.dumps({i: t.as_json() for i, t in v.added.items()}))
    for add, value in ((writer.add_bos_token_id, v.bos_id), (writer.add_unk_token_id, v.unk_id)):
        if value is not None:
            add(value)
    adds = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
    stops = [*dict.fromkeys(i for i in (v.eos_id, *checkpoint.eos_ids) if i is not None)]
    for add, value in zip(adds, stops, strict=False):
        add(value)
    if checkpoint.eos_ids and tuple(stops[:len(adds)]) != checkpoint.eos_ids:
        writer.add_array(STOPS, list(checkpoint.eos_ids))
    writer.add_add_bos_token(v.add_bos)
    writer.add_add_eos_token(v.add_eos)
    if v.templates:
        writer.add_chat_template([{"name": name, "template": text}
                                  for name, text in v.templates.items()])
