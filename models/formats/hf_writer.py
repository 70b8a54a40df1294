"""Writing a Hugging Face folder: config.json, model.safetensors, generation_config.json.

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

from core.quantize import quantize
from core.tensor import Array
from core.weights import Progress, part_names
from models.formats.safetensors_writer import Entry, write_safetensors
from models.formats.slots import EMBEDDING, HEAD
from models.formats.source import Source

DTYPES: dict[str, np.dtype[Any]] = {
    "f32": np.dtype(np.float32), "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16)}
LONG = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
MODEL_TYPES = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"}
QUANT_METHOD = "kernelyard"


def write_huggingface(source: Source, folder: Path, dtype: str, bits: int | None,
                      progress: Progress) -> None:
    """Into an existing folder, without the tokenizer. Rows of q and k in halves."""
    c = source.checkpoint
    named = "dtype" if "dtype" in c.config.data else "torch_dtype"  # transformers 5, 4; both read
    config = {"bos_token_id": c.tokenizer.bos_id, **c.config.data, named: LONG[dtype],
              "use_cache": True,
              "model_type": MODEL_TYPES.get(source.config.architecture,
                                            c.config.data.get("model_type", "llama")),
              "tie_word_embeddings": source.config.tied_embeddings}
    config.pop("quantization_config", None)
    config["eos_token_id"] = list(c.eos_ids) if len(c.eos_ids) > 1 else next(iter(c.eos_ids), None)
    entries: dict[str, Entry] = {}
    for name in _names(source, bits):
        shape = source.shape(name)
        if bits and (name == HEAD or name.endswith("_proj.weight")):
            layout = _add_quantized(entries, source, name, shape, bits)
            config["quantization_config"] = layout
        else:
            entries[name] = Entry(shape, DTYPES[dtype],
                                  partial(source.array, name, pairs=False))
    _write_json(folder / "config.json", config)
    if not (folder / "generation_config.json").exists():  # else it was copied
        _write_json(folder / "generation_config.json",
                    {"bos_token_id": c.tokenizer.bos_id, "eos_token_id": config["eos_token_id"]})
    write_safetensors(folder / "model.safetensors", entries, progress)



def _names(source: Source, bits: int | None) -> list[str]:
    """With a quantised head of its own for a tied one: the embedding stays for the look-up."""
    extra = [HEAD] if bits and source.config.tied_embeddings and EMBEDDING in source.names else []
    return [*source.names, *extra]


def _add_quantized(entries: dict[str, Entry], source: Source, name: str,
                   shape: tuple[int, ...], bits: int) -> dict[str, Any]:
    probe = quantize(np.zeros((1, shape[1]), np.float32), bits)  # for shapes and dtypes
    made: dict[str, Array] = {}

    def part(wanted: str) -> Array:
        if not made:  # all parts of a matrix are written one after another
            q = quantize(source.array(name, pairs=False).astype(np.float32), bits)
            made.update({p: a for p, a in zip(part_names(name), (q.codes, q.scales, q.zeros),
                                              strict=True) if a is not None})
        return made.pop(wanted)

    for wanted, one in zip(part_names(name), (probe.codes, probe.scales, probe.zeros), strict=True):
        if one is not None:
            entries[wanted] = Entry((shape[0], one.shape[1]), one.dtype, partial(part, wanted))
    return {"quant_method": QUANT_METHOD, "bits": bits, "group_size": probe.group_size,
            "has_zeros": probe.zeros is not None}


def _write_json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")
