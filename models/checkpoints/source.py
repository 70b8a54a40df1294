"""Source: gives a writer its tensors, whatever format they were read from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from core.errors import CheckpointError, ConfigError
from core.installed.registry import Registry
from core.ops.quantized.layouts import expand_stored, part_names, stored_parts
from core.tensor.tensor import Array
from models.architectures.base import find_architecture
from models.architectures.rope import RopeConfig
from models.architectures.tensors import EMBEDDING, HEAD
from models.checkpoints.base import Checkpoint
from models.checkpoints.llama2c.layout import Dimensions
from models.checkpoints.rows import to_halves, to_pairs
from models.checkpoints.shapes import arrange_whole


class Source:
    """Gives tensors of a checkpoint by Hugging Face's names, whole and in the row order asked
    for."""

    def __init__(self, checkpoint: Checkpoint, registry: Registry) -> None:
        names = checkpoint.config.get("architectures", list)
        self.architecture = find_architecture(str(names[0]) if names else "", registry)
        self.checkpoint = checkpoint
        self.config = self.architecture.config(checkpoint.config)
        self.tensors = self.architecture.tensors(self.config)
        if self.config.tied_embeddings and HEAD in checkpoint.quantized:
            self.check()
        if self.config.tied_embeddings and self._has_own_head():
            self.config = replace(self.config, tied_embeddings=False)
        parts = stored_parts(checkpoint.quantized)
        self.names = [n for n in (*checkpoint.arrays, *checkpoint.quantized)
                      if n not in parts and not n.endswith("rotary_emb.inv_freq")
                      and not (n == HEAD and self.config.tied_embeddings)]

    def check(self) -> None:
        """Raise CheckpointError unless the file holds the configured model, whole."""
        arrange_whole(self.checkpoint, self.tensors, tied=HEAD not in self.tensors)

    def array(self, name: str, *, pairs: bool) -> Array:
        """Return the tensor in its stored float dtype; float32 if it was quantised. q and k rows in
        pairs or in halves. A tied head is the embedding. Raises CheckpointError if it is missing.
        """
        c, name = self.checkpoint, self._stored_name(name)
        if name in c.quantized:
            array = expand_stored(c.arrays, name, c.quantized[name], self._columns(name))
        elif name in c.arrays:
            array = c.arrays[name]
        else:
            raise CheckpointError(f"{c.path}: tensor {name} is missing; the checkpoint holds "
                                  f"{len(c.arrays)} tensors")
        heads = self.tensors[name].rotary_heads if name in self.tensors else 0
        if heads and pairs != c.interleaved:
            return to_pairs(array, heads) if pairs else to_halves(array, heads)
        return array

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of `array`, without making it."""
        name = self._stored_name(name)
        if name not in self.checkpoint.quantized:
            return tuple(self.checkpoint.arrays[name].shape)
        codes = part_names(name, self.checkpoint.quantized[name])[0]
        return len(self.checkpoint.arrays[codes]), self._columns(name)

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of `array`, without making it."""
        name = self._stored_name(name)
        held = name not in self.checkpoint.quantized
        return self.checkpoint.arrays[name].dtype if held else np.dtype(np.float32)

    def _has_own_head(self) -> bool:
        """Return whether a tied head was quantised from the embedding while the look-up kept full
        precision: then two different matrices are in use, and both must be written."""
        c = self.checkpoint
        if HEAD not in c.quantized or EMBEDDING not in c.arrays:
            return False
        rows = slice(0, 64)
        head = expand_stored(c.arrays, HEAD, c.quantized[HEAD], self.config.hidden_size, rows)
        return not np.array_equal(head, c.arrays[EMBEDDING][rows].astype(np.float32))

    def _stored_name(self, name: str) -> str:
        return EMBEDDING if name == HEAD and self.config.tied_embeddings else name

    def _columns(self, name: str) -> int:
        """Return the row length of a quantised matrix: with two codes a byte the last may be half
        used."""
        return self.tensors[EMBEDDING if name == HEAD else name].shape[1]

    def dimensions(self) -> Dimensions:
        """Return the sizes for formats with a fixed header. Raises ConfigError for a head size of
        its own."""
        c = self.config
        if c.heads * c.head_dim != c.hidden_size:
            raise ConfigError(f"head_dim is {c.head_dim}, the format can hold only hidden_size / "
                              f"heads = {c.hidden_size / c.heads:g}; export to hf or gguf instead")
        return Dimensions(c.hidden_size, c.intermediate_size, c.layers, c.heads, c.kv_heads,
                          c.vocab_size, c.max_positions, c.tied_embeddings)

    def require(self, program: str, theta: float, eps: float) -> None:
        """Refuse what `program` would compute differently: it fixes these constants. Raises
        ConfigError."""
        if self.config.rope.type != "default":
            raise ConfigError(f"{program} computes no rope scaling, the model has "
                              f"{self.config.rope.type!r}; export to hf or gguf instead, or pass "
                              "--ignore-rope-scaling to write what that program would run")
        wanted = {"rope theta": (self.config.rope.theta, theta),
                  "norm eps": (self.config.norm_eps, eps)}
        for what, (found, fixed) in wanted.items():
            if not np.isclose(found, fixed, rtol=1e-6):
                raise ConfigError(f"{program} fixes {what} at {fixed:g}, the model has {found:g}; "
                                  "export to hf or gguf instead")


def without_rope_scaling(checkpoint: Checkpoint) -> Checkpoint:
    """Return the model that a program without rope scaling computes."""
    data = dict(checkpoint.config.data)
    rope = RopeConfig.read(data, checkpoint.config.where,
                           checkpoint.config.size("max_position_embeddings", 2048))
    data.update(rope_theta=rope.theta, rope_scaling=None, rope_parameters=None)
    return replace(checkpoint, config=type(checkpoint.config)(data, checkpoint.config.where))
