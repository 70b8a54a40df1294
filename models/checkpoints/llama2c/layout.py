"""Defines the order of tensors in llama2.c's and KuiperLLama's files, for readers and writers.

A file is a header and then tensors without padding. Sources: `export.py` and `runq.c` of
https://github.com/karpathy/llama2.c (MIT); for KuiperLLama the behaviour of its loader and of its
export tools (https://github.com/zjhellofss/KuiperLLama). docs/file-formats.md has the tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import CheckpointError
from models.architectures.config import ModelConfig
from models.architectures.llama import Llama
from models.architectures.rope import RopeConfig
from models.architectures.tensors import EMBEDDING, HEAD, NORM
from models.checkpoints.limits import LIMITS

FREQUENCIES = "(cos and sin tables)"  # written by every exporter, skipped by every program
ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MLP = ("mlp.gate_proj", "mlp.down_proj", "mlp.up_proj")  # w1, w2, w3


@dataclass(frozen=True)
class Dimensions:
    """Holds the seven integers of a header; sizes in elements. `tied`: the head is the
    embedding."""

    dim: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    positions: int
    tied: bool

    @classmethod
    def parse(cls, numbers: Sequence[int], tied: bool | None = None) -> Dimensions:
        """Parse the integers in the file's order. Without `tied` the sign of the vocabulary says
        it: negative where a head of its own follows."""
        dim, hidden, layers, heads, kv_heads, vocab, positions = numbers
        if tied is None:
            tied, vocab = vocab > 0, abs(vocab)
        return cls(dim, hidden, layers, heads, kv_heads, vocab, positions, tied)

    def problem(self) -> str | None:
        """Return why no model can have these sizes, or None."""
        sizes = (("dim", self.dim, "hidden_size"), ("hidden_dim", self.hidden, "intermediate_size"),
                 ("n_layers", self.layers, "num_hidden_layers"),
                 ("n_heads", self.heads, "num_attention_heads"),
                 ("n_kv_heads", self.kv_heads, "num_key_value_heads"),
                 ("vocab_size", self.vocab, "vocab_size"),
                 ("max_seq_len", self.positions, "max_position_embeddings"))
        for name, value, key in sizes:
            if not 0 < value <= LIMITS[key]:
                return f"{name} is {value}, expected 1 to {LIMITS[key]}"
        if self.dim % self.heads or self.dim // self.heads % 2:
            return f"dim {self.dim} does not split into {self.heads} heads of an even size"
        if self.heads % self.kv_heads:
            return f"n_heads {self.heads} is not a multiple of n_kv_heads {self.kv_heads}"
        return None

    @property
    def numbers(self) -> tuple[int, ...]:
        """Return the seven integers in the file's order, the vocabulary positive."""
        return (self.dim, self.hidden, self.layers, self.heads, self.kv_heads, self.vocab,
                self.positions)


    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of a layer's tensors, as the family states them."""
        config = ModelConfig("", self.vocab, self.dim, self.hidden, self.layers, self.heads,
                             self.kv_heads, self.dim // self.heads, 0.0, self.positions,
                             RopeConfig(1.0), self.tied, frozenset(), None, ())
        return {name: spec.shape for name, spec in Llama().layer_tensors(config).items()}


@dataclass(frozen=True)
class Slot:
    """Describes a tensor in a file: float32, or int8 codes followed by float32 scales of groups
    (Q8_0)."""

    name: str
    shape: tuple[int, ...]
    quantized: bool = False

    def nbytes(self, group: int) -> int:
        count = math.prod(self.shape)
        return count + count // group * 4 if self.quantized else count * 4


def v0_layout(d: Dimensions, biases: bool = False) -> list[Slot]:
    """Return the layout of llama2.c v0 and KuiperLLama's float32 files; with `biases` that of the
    latter's Qwen2 files, where a layer's bias of q, k or v follows its weight."""
    attention = [s for kind in ATTENTION for s in _layers(
        d, kind, biases and not kind.endswith("o_proj"))]
    return [Slot(EMBEDDING, (d.vocab, d.dim)), *_norms(d, "input_layernorm"), *attention,
            *_norms(d, "post_attention_layernorm"),
            *(s for kind in MLP for s in _layers(d, kind)), Slot(NORM, (d.dim,)),
            Slot(FREQUENCIES, (2, d.positions, d.dim // d.heads // 2)), *_head(d)]


def v1_layout(d: Dimensions) -> list[Slot]:
    """Return the layout of llama2.c v1: norms first, then the embedding and the matrices, all
    float32."""
    return [*_all_norms(d), Slot(EMBEDDING, (d.vocab, d.dim)), *_matrices(d), *_head(d)]


def v2_layout(d: Dimensions) -> list[Slot]:
    """Return the layout of llama2.c v2: as v1 with everything but the norms as Q8_0."""
    rest = v1_layout(d)[len(_all_norms(d)):]
    return [*_all_norms(d), *(Slot(s.name, s.shape, True) for s in rest)]


def kuiper_int8_layout(d: Dimensions) -> list[Slot]:
    """Return the layout of KuiperLLama int8: quantised matrices and head first, then float32
    embedding and norms."""
    first = [Slot(s.name, s.shape, True) for s in [*_matrices(d), *_head(d)]]
    return [*first, Slot(EMBEDDING, (d.vocab, d.dim)), *_all_norms(d)]


def total_bytes(layout: Sequence[Slot], group: int = 1) -> int:
    return sum(s.nbytes(group) for s in layout)


def check_group(layout: Sequence[Slot], group: int, where: str) -> None:
    """Raises CheckpointError unless every quantised tensor is a whole number of groups."""
    for slot in layout:
        if slot.quantized and (group <= 0 or math.prod(slot.shape) % group):
            raise CheckpointError(f"{where}: the header states groups of {group}, which do not "
                                  f"divide the {math.prod(slot.shape)} elements of {slot.name}")


def _layers(d: Dimensions, kind: str, bias: bool = False) -> list[Slot]:
    shape = d.layer_shapes()[f"{kind}.weight"]
    layout = []
    for layer in range(d.layers):
        layout.append(Slot(f"model.layers.{layer}.{kind}.weight", shape))
        if bias:
            layout.append(Slot(f"model.layers.{layer}.{kind}.bias", shape[:1]))
    return layout


def _matrices(d: Dimensions) -> list[Slot]:
    return [s for kind in (*ATTENTION, *MLP) for s in _layers(d, kind)]


def _norms(d: Dimensions, kind: str) -> list[Slot]:
    return [Slot(f"model.layers.{layer}.{kind}.weight", (d.dim,)) for layer in range(d.layers)]


def _all_norms(d: Dimensions) -> list[Slot]:
    return [*_norms(d, "input_layernorm"), *_norms(d, "post_attention_layernorm"),
            Slot(NORM, (d.dim,))]


def _head(d: Dimensions) -> list[Slot]:
    return [] if d.tied else [Slot(HEAD, (d.vocab, d.dim))]
