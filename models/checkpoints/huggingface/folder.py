"""Reads a Hugging Face folder: config.json, safetensors in one file or shards, tokenizer files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from core.errors import CheckpointError
from core.tensor.tensor import Array
from models.architectures.base import Architecture
from models.checkpoints.base import Checkpoint
from models.checkpoints.generation import stop_origins
from models.checkpoints.huggingface.generation_config import read_generation_config
from models.checkpoints.huggingface.quantized import read_quantized
from models.checkpoints.huggingface.safetensors import read_safetensors
from models.checkpoints.limits import check_numbers
from models.checkpoints.locate import FOLDER_CONFIGS, listed
from models.checkpoints.meta.torch_file import read_torch
from models.checkpoints.stored import drop_buffers, match_biases, with_prefix
from models.json_reader import ConfigReader
from models.tokenizers.base import load_tokenizer

CONFIG = "config.json"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TORCH, TORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
ADAPTER = "adapter_config.json"


class HuggingFaceFolder:
    """Reads what `save_pretrained` of transformers writes, safetensors or PyTorch's files."""

    name, key = "Hugging Face folder (config.json and safetensors)", "hf"

    def recognises(self, path: Path) -> bool:
        return path.is_dir()

    def read(self, path: Path, families: Mapping[str, Architecture]) -> Checkpoint:
        """Raises CheckpointError, ConfigError, TokenizerError, OptionError without torch."""
        if not path.is_dir():
            raise CheckpointError(f"{path} is a file, expected a folder; name the folder that "
                                  "holds it")
        if (path / ADAPTER).exists():
            raise CheckpointError(f"{path} holds an adapter ({ADAPTER}), not a whole model; merge "
                                  "it into its base model (peft: merge_and_unload, then "
                                  "save_pretrained) and name the folder that this writes")
        if not (path / CONFIG).exists():
            raise CheckpointError(f"{path} holds no model: no {', no '.join(FOLDER_CONFIGS)} and "
                                  f"no GGUF file; it holds: {listed(path)}. Name the folder that "
                                  "holds a whole model, or the model's file")
        config = ConfigReader.open(path / CONFIG)
        check_numbers(config)
        weights = read_quantized(config, with_prefix(_read_arrays(path)))
        drop_buffers(weights, str(path))
        match_biases(weights)
        stated, generation = read_generation_config(path, config)
        tokenizer = load_tokenizer(path)
        stops = stop_origins(("config.json", config.ids("eos_token_id")),
                             (Path(stated.where).name, stated.ids("eos_token_id")),
                             ("EOS of the tokenizer", [tokenizer.eos_id]))
        return Checkpoint(path, config, weights.arrays, tokenizer, tuple(stops),
                          weights.quantized, notes=weights.notes, generation=generation,
                          stops_from=stops)


def _read_arrays(path: Path) -> dict[str, Array]:
    """Read safetensors where there are any, as transformers prefers them, else PyTorch's files."""
    for single, index, read in ((SINGLE, INDEX, read_safetensors),
                                (TORCH, TORCH_INDEX, partial(read_torch, buffers=True))):
        if (path / single).exists():
            return read(path / single)
        if (path / index).exists():
            return _read_shards(path, index, read)
    raise CheckpointError(f"{path} has no weights: no {SINGLE}, {INDEX}, {TORCH} or {TORCH_INDEX}; "
                          f"it holds: {listed(path)}. Fetch the weights, or give "
                          "them one of these names")


def _read_shards(path: Path, index: str, read: Callable[[Path], dict[str, Array]],
                 ) -> dict[str, Array]:
    placed = ConfigReader.open(path / index).get("weight_map", dict)
    if not all(isinstance(k, str) and isinstance(v, str) for k, v in placed.items()):
        raise CheckpointError(f"{path / index}: weight_map must map tensor names to file names")
    shards: dict[str, dict[str, Array]] = {}
    for name in sorted(set(placed.values())):
        if not _is_file_of(path, name):
            raise CheckpointError(f"shard {name[:200]} named by {index} is missing from {path}; "
                                  f"the checkpoint has {len(set(placed.values()))} shards: fetch "
                                  "it again")
        shards[name] = read(path / name)
    for tensor, shard in placed.items():
        if tensor not in shards[shard]:
            raise CheckpointError(f"{path}: {index} places tensor {tensor[:200]} in {shard}, "
                                  "which does not hold it; the shards do not belong together")
    owners: dict[str, str] = {}
    for shard, tensors in shards.items():
        for tensor in tensors:
            if tensor in owners:
                raise CheckpointError(f"{path}: tensor {tensor} is in both {owners[tensor]} and "
                                      f"{shard}; the shards do not belong together")
            owners[tensor] = shard
    return {tensor: array for tensors in shards.values() for tensor, array in tensors.items()}


def _is_file_of(folder: Path, name: str) -> bool:
    """Say whether `name` is a plain name, and there."""
    try:
        return Path(name).name == name and (folder / name).exists()
    except (OSError, ValueError):  # too long, or with a NUL
        return False
