"""Reads llama2.c's `.bin` with a magic number: v1 (float32) and v2 (int8 Q8_0 groups).

Header of 256 bytes (https://github.com/karpathy/llama2.c, export.py): uint32 0x616b3432 ("ak42"),
int32 version, seven int32 (layout.Dimensions), uint8 tied, in v2 int32 group size, zeros. Both hold
q and k rows in pairs. llama2.c fixes theta 10000 and eps 1e-5, and ends a text at BOS.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from core.errors import CheckpointError
from models.architectures.base import Architecture
from models.checkpoints.base import Checkpoint, read_start
from models.checkpoints.generation import stop_origins
from models.checkpoints.llama2c.layout import Dimensions, v1_layout, v2_layout
from models.checkpoints.llama2c.layout_reader import read_layout
from models.json_reader import ConfigReader
from models.tokenizers.beside import load_beside

MAGIC, HEADER_BYTES = 0x616B3432, 256
HEADER = struct.Struct("<Ii7iB")  # the group size follows unaligned
GROUP = struct.Struct("<i")
THETA, EPS = 10000.0, 1e-5


class Llama2cFile:
    """Versions 1 and 2; version 0 has no magic number and is `headerless.HeaderlessFile`."""

    name, key = "llama2.c file, v1 or v2 (magic ak42)", "llama2c"

    def recognises(self, path: Path) -> bool:
        return path.is_file() and read_start(path, 4) == struct.pack("<I", MAGIC)

    def read(self, path: Path, families: Mapping[str, Architecture]) -> Checkpoint:
        """Raises CheckpointError, TokenizerError."""
        start = read_start(path, HEADER_BYTES)
        if len(start) < HEADER_BYTES or start[:4] != struct.pack("<I", MAGIC):
            raise CheckpointError(f"{path} does not begin with llama2.c's header of 256 bytes; it "
                                  "is truncated or in another format: fetch it again")
        _, version, *numbers, tied = HEADER.unpack_from(start)
        if version not in (1, 2):
            raise CheckpointError(f"{path} states llama2.c version {version}, expected 1 (float32) "
                                  "or 2 (int8); export it again with --version 1 or 2")
        d = Dimensions.parse(numbers, bool(tied))
        problem = d.problem()
        if problem or tied > 1:
            raise CheckpointError(f"{path}: {problem or f'the tied flag is {tied}'}; the header is "
                                  "damaged: fetch it again")
        if version == 1:
            weights = read_layout(path, HEADER_BYTES, v1_layout(d))
        else:
            group, = GROUP.unpack_from(start, HEADER.size)
            weights = read_layout(path, HEADER_BYTES, v2_layout(d), group)
        tokenizer = load_beside(path, ("tokenizer.model", "tokenizer.bin", "tokenizer.json"))
        stops = stop_origins(("EOS of the tokenizer", [tokenizer.eos_id]),
                             ("BOS, as run.c ends there", [tokenizer.bos_id]))
        return Checkpoint(path, config_of(d, str(path)), weights.arrays, tokenizer, tuple(stops),
                          weights.quantized, True, weights.notes, stops_from=stops)


def config_of(d: Dimensions, where: str, architecture: str = "LlamaForCausalLM",
              theta: float = THETA, eps: float = EPS) -> ConfigReader:
    """Return the header's sizes in Hugging Face's keys, with the constants that the programs
    fix."""
    return ConfigReader({
        "architectures": [architecture], "vocab_size": d.vocab, "hidden_size": d.dim,
        "intermediate_size": d.hidden, "num_hidden_layers": d.layers,
        "num_attention_heads": d.heads, "num_key_value_heads": d.kv_heads,
        "max_position_embeddings": d.positions, "rms_norm_eps": eps, "rope_theta": theta,
        "tie_word_embeddings": d.tied}, where)


