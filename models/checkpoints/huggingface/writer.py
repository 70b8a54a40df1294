"""Writes a Hugging Face folder: config.json, model.safetensors, generation_config.json.

Full-precision folders are what transformers reads. Quantised ones hold `NAME.codes`, `NAME.scales`
and `NAME.zeros` for each projection and the head (docs/file-formats.md); kernelyard reads them.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from core.ops.quantized.layouts import part_names
from core.plan.weights import Progress
from core.tensor.tensor import Array
from models.architectures.tensors import EMBEDDING, HEAD
from models.checkpoints.huggingface.generation_config import to_generation_config
from models.checkpoints.huggingface.safetensors_writer import Entry, write_safetensors
from models.checkpoints.quantization import Quantization
from models.checkpoints.source import Source

DTYPES: dict[str, np.dtype[Any]] = {
    "f32": np.dtype(np.float32), "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16)}
LONG = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
QUANT_METHOD = "kernelyard"


def write_huggingface(source: Source, folder: Path, dtype: str, quantization: Quantization | None,
                      progress: Progress) -> None:
    """Write into an existing folder, without the tokenizer. Rows of q and k in halves."""
    c = source.checkpoint
    named = "dtype" if "dtype" in c.config.data else "torch_dtype"  # transformers 5, 4; both read
    config = {"bos_token_id": c.tokenizer.bos_id, **c.config.data, named: LONG[dtype],
              "use_cache": True,
              "model_type": source.architecture.model_type,
              "tie_word_embeddings": source.config.tied_embeddings}
    config.pop("quantization_config", None)
    config["eos_token_id"] = list(c.eos_ids) if len(c.eos_ids) > 1 else next(iter(c.eos_ids), None)
    entries: dict[str, Entry] = {}
    chosen = huggingface_matrices(source, quantization)
    extra = [HEAD] if HEAD in chosen and HEAD not in source.names else []
    for name in [*source.names, *extra]:
        shape = source.shape(name)
        if quantization and name in chosen:
            layout = _add_quantized(entries, source, name, shape, quantization)
            config["quantization_config"] = layout
        else:
            entries[name] = Entry(shape, DTYPES[dtype],
                                  partial(source.array, name, pairs=False))
    _write_json(folder / "config.json", config)
    if not (folder / "generation_config.json").exists():  # else it was copied
        _write_json(folder / "generation_config.json",
                    {"bos_token_id": c.tokenizer.bos_id, "eos_token_id": config["eos_token_id"],
                     **to_generation_config(c.generation)})
    write_safetensors(folder / "model.safetensors", entries, progress)


def huggingface_matrices(source: Source, quantization: Quantization | None) -> list[str]:
    """The matrices that are quantised; for a tied model a head of its own is among them, as the
    embedding stays for the look-up. Raises OptionError for a pattern that matches nothing."""
    if quantization is None:
        return []
    names = [n for n in source.names if n.endswith("_proj.weight") or n == HEAD]
    tied = source.config.tied_embeddings and EMBEDDING in source.names
    return quantization.choose([*names, *([HEAD] if tied else [])])


def _add_quantized(entries: dict[str, Entry], source: Source, name: str,
                   shape: tuple[int, ...], quantization: Quantization) -> dict[str, Any]:
    probe = quantization.probe(shape[1])
    made: dict[str, Array] = {}

    def part(wanted: str) -> Array:
        if not made:  # all parts of a matrix are written one after another
            q = quantization.apply(source.array(name, pairs=False).astype(np.float32))
            made.update({p: a for p, a in zip(part_names(name), (q.codes, q.scales, q.zeros),
                                              strict=True) if a is not None})
        return made.pop(wanted)

    for wanted, one in zip(part_names(name), (probe.codes, probe.scales, probe.zeros), strict=True):
        if one is not None:
            entries[wanted] = Entry((shape[0], one.shape[1]), one.dtype, partial(part, wanted))
    return {"quant_method": QUANT_METHOD, "bits": probe.bits, "group_size": probe.group_size,
            "has_zeros": probe.zeros is not None}


def _write_json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")
