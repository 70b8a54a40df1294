"""Llama: Llama-2, TinyLlama, Llama-3.2 and whatever shares their block (https://arxiv.org/abs/2302.13971)."""

from __future__ import annotations

from typing import ClassVar

from core.errors import ConfigError
from core.ir.graph import Graph, Value
from core.plan.weights import WeightStore
from core.reading import shown
from core.runtime.step import GraphKind
from core.tensor.dtype import DType, f32
from core.tensor.tensor import TensorSpec
from models.architectures.base import Architecture
from models.architectures.config import ModelConfig, read_config
from models.architectures.layers import Builder
from models.architectures.tensors import EMBEDDING, HEAD, NORM, WeightSpec
from models.architectures.window import find_window
from models.json_reader import ConfigReader

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")


class Llama(Architecture):
    """Build decoder layers of rms_norm → attention → residual, rms_norm → SwiGLU MLP → residual."""

    name, model_type = "LlamaForCausalLM", "llama"
    gguf_name, gguf_pairs = "llama", True
    #: each `model_type` under which transformers computes this; a family made of this one has none
    model_types: ClassVar[tuple[str, ...]] = ("llama", "mistral")

    def config(self, reader: ConfigReader) -> ModelConfig:
        self.check_type(reader)
        reader.size("pretraining_tp", 1)  # slices of a product: the same function for any number
        return read_config(reader, self.name, self.biases(reader), self.window(reader))

    def check_type(self, reader: ConfigReader) -> None:
        """Raise ConfigError where `model_type` names another family: transformers goes by it, and
        would compute something else."""
        known = vars(type(self)).get("model_types", ())
        if known and reader.get("model_type", str, known[0]) not in known:
            raise ConfigError(f"{reader.where}: model_type is {shown(reader.data['model_type'])}, "
                              f"and architectures says {self.name}, expected "
                              f"{' or '.join(map(repr, known))}; correct the one that is wrong")

    def window(self, reader: ConfigReader) -> int | None:
        """Return the sliding window, None without one: transformers goes by model_type."""
        return find_window(reader, used=reader.get("model_type", str, "") == "mistral")

    def biases(self, reader: ConfigReader) -> frozenset[str]:
        """Name the projections with a bias."""
        return frozenset((ATTENTION if reader.get("attention_bias", bool, False) else ())
                         + (MLP if reader.get("mlp_bias", bool, False) else ()))

    def tensors(self, config: ModelConfig) -> dict[str, WeightSpec]:
        c = config
        found = {EMBEDDING: WeightSpec((c.vocab_size, c.hidden_size)),
                 NORM: WeightSpec((c.hidden_size,))}
        if not c.tied_embeddings:
            found[HEAD] = WeightSpec((c.vocab_size, c.hidden_size), split="rows")
        layer = self.layer_tensors(c)
        for i in range(c.layers):
            prefix = f"model.layers.{i}."
            found.update((prefix + name, spec.within(prefix)) for name, spec in layer.items())
        return found

    def layer_tensors(self, c: ModelConfig) -> dict[str, WeightSpec]:
        """List the tensors of one layer, their names and sources without `model.layers.N.`."""
        hidden, inner = c.hidden_size, c.intermediate_size
        q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
        matrices = {
            "self_attn.q_proj": WeightSpec((q, hidden), c.heads, "rows"),
            "self_attn.k_proj": WeightSpec((kv, hidden), c.kv_heads, "rows"),
            "self_attn.v_proj": WeightSpec((kv, hidden), split="rows"),
            "self_attn.o_proj": WeightSpec((hidden, q), split="columns"),
            "mlp.gate_proj": WeightSpec((inner, hidden), split="rows"),
            "mlp.up_proj": WeightSpec((inner, hidden), split="rows"),
            "mlp.down_proj": WeightSpec((hidden, inner), split="columns")}
        found = {f"{name}.weight": spec for name, spec in matrices.items()}
        found |= {"input_layernorm.weight": WeightSpec((hidden,)),
                  "post_attention_layernorm.weight": WeightSpec((hidden,))}
        for name, spec in matrices.items():
            if name.rpartition(".")[2] in c.biases:
                split = spec.split if spec.split == "rows" else None
                found[f"{name}.bias"] = WeightSpec(spec.shape[:1], spec.rotary_heads, split)
        return found

    def build(self, config: ModelConfig, weights: WeightStore, kind: GraphKind, *,
              activations: DType, kv_dtype: DType) -> Graph:
        b = Builder(config, weights, activations, kind, self.tensors(config))
        x = b.embed()
        for layer in range(config.layers):
            x = self.layer(b, layer, x, kv_dtype)
        b.finish(x)
        return b.graph

    def layer(self, b: Builder, index: int, x: Value, kv_dtype: DType) -> Value:
        """Add a decoder layer: x [T, hidden] → [T, hidden]."""
        b.path = f"layers.{index}"
        mixed = self.attention(b, b.norm(x, "input_layernorm"), kv_dtype)
        if index == b.config.layers - 1:
            mixed, x = b.needed(attention=mixed, hidden=x)
        x = b.one("add", x, b.linear(mixed, "self_attn.o_proj"), name="attention_residual")
        h = b.norm(x, "post_attention_layernorm")
        gate, up = b.linear(h, "mlp.gate_proj"), b.linear(h, "mlp.up_proj")
        h = b.one("swiglu", gate, up, name="swiglu")
        return b.one("add", x, b.linear(h, "mlp.down_proj"), name="mlp_residual")

    def attention(self, b: Builder, h: Value, kv_dtype: DType) -> Value:
        """Add attention of rotated queries and keys over the paged cache: [T, heads * head_dim]."""
        c, g = b.config, b.graph
        q, k, v = (g.view(b.linear(h, f"self_attn.{name}"), b.tokens, heads, c.head_dim)
                   for name, heads in (("q_proj", c.heads), ("k_proj", c.kv_heads),
                                       ("v_proj", c.kv_heads)))
        q, k = (b.one("rope", z, b.inputs["positions"], b.inv_freq, name=f"rope_{n}",
                      interleaved=c.rope.interleaved) for z, n in ((q, "q"), (k, "k")))
        cache = g.state(f"{b.path}.kv_cache",
                        TensorSpec((2, "NB", "BS", c.kv_heads, c.head_dim), kv_dtype))
        scales = None if kv_dtype.is_float else g.state(
            f"{b.path}.kv_scales", TensorSpec((2, "NB", "BS", c.kv_heads), f32))
        cache, scales = b.add("kv_cache_write", k, v, cache, scales, b.inputs["slots"],
                              name="kv_cache_write")
        mixed = b.one("attention", q, cache, scales, b.inputs["block_table"],
                      b.inputs["query_starts"], b.inputs["seq_lens"], name="attention",
                      scale=c.head_dim**-0.5 * c.rope.attention_factor**2)
        return g.view(mixed, b.tokens, c.heads * c.head_dim)
