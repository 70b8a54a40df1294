"""Reads a Hugging Face folder: config.json, safetensors in one file or shards, tokenizer files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from core.errors import CheckpointError
from core.tensor.tensor import Array
from models.architectures.base import Architecture
from models.checkpoints.base import Checkpoint
from models.checkpoints.huggingface.quantized import read_quantized
from models.checkpoints.huggingface.safetensors import read_safetensors
from models.json_reader import ConfigReader
from models.tokenizers.base import load_tokenizer

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class HuggingFaceFolder:
    """Reads what `save_pretrained` of transformers 4 and 5 writes."""

    name, key = "Hugging Face folder (config.json and safetensors)", "hf"

    def recognises(self, path: Path) -> bool:
        return path.is_dir()

    def read(self, path: Path, families: Mapping[str, Architecture]) -> Checkpoint:
        config = ConfigReader.open(path / "config.json")
        weights = read_quantized(config, _read_arrays(path))
        generation = path / "generation_config.json"
        eos = list(config.ids("eos_token_id"))
        if generation.exists():
            eos += ConfigReader.open(generation).ids("eos_token_id")
        tokenizer = load_tokenizer(path)
        if tokenizer.eos_id is not None:
            eos.append(tokenizer.eos_id)
        return Checkpoint(path, config, weights.arrays, tokenizer, tuple(dict.fromkeys(eos)),
                          weights.quantized, notes=weights.notes)


def _read_arrays(path: Path) -> dict[str, Array]:
    if (path / SINGLE).exists():
        return read_safetensors(path / SINGLE)
    if not (path / INDEX).exists():
        raise CheckpointError(f"{path} has neither {SINGLE} nor {INDEX}; it holds: "
                              f"{', '.join(sorted(p.name for p in path.iterdir())) or 'nothing'}")
    index = ConfigReader.open(path / INDEX)
    placed = index.get("weight_map", dict)
    if not all(isinstance(k, str) and isinstance(v, str) for k, v in placed.items()):
        raise CheckpointError(f"{path / INDEX}: weight_map must map tensor names to file names")
    shards: dict[str, dict[str, Array]] = {}
    for name in sorted(set(placed.values())):
        if Path(name).name != name or not (path / name).exists():
            raise CheckpointError(f"shard {name} named by {INDEX} is missing from {path}; the "
                                  f"checkpoint has {len(set(placed.values()))} shards: fetch it "
                                  "again")
        shards[name] = read_safetensors(path / name)
    for tensor, shard in placed.items():
        if tensor not in shards[shard]:
            raise CheckpointError(f"{path}: {INDEX} places tensor {tensor} in {shard}, which does "
                                  "not hold it; the shards do not belong together")
    owners: dict[str, str] = {}
    for shard, tensors in shards.items():
        for tensor in tensors:
            if tensor in owners:
                raise CheckpointError(f"{path}: tensor {tensor} is in both {owners[tensor]} and "
                                      f"{shard}; the shards do not belong together")
            owners[tensor] = shard
    return {tensor: array for tensors in shards.values() for tensor, array in tensors.items()}
