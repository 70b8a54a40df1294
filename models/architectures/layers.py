"""Builder: declares on a Graph the parts that decoder models share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.errors import CheckpointError, PluginError
from core.ir.graph import Graph, Value
from core.ops.quantized.layouts import Layout
from core.plan.weights import WeightStore
from core.runtime.step import BLOCK_SIZE, KEPT_TOKENS, SEEN, GraphKind
from core.tensor.dtype import DType, f32, i8, i32
from core.tensor.tensor import TensorSpec
from models.architectures.config import ModelConfig
from models.architectures.tensors import EMBEDDING, HEAD, WeightSpec

INV_FREQ = "rope.inv_freq"  # a constant computed from the config, kept beside the weights


class Builder:
    """Holds the graph being declared, the step's inputs and where in the model it is (`path`).

    tensors  the family's; `weight` and `linear` look shapes up there
    """

    def __init__(self, config: ModelConfig, weights: WeightStore, activations: DType,
                 kind: GraphKind, tensors: Mapping[str, WeightSpec]) -> None:
        self.config, self.weights, self.activations, self.kind = config, weights, activations, kind
        self.tensors = tensors
        self.graph = Graph(config.architecture)
        self.path = ""
        #: the name of the token dimension: in the loop every sequence has just one token
        self.tokens = t = "S" if kind.loop else "T"
        #: the name of the dimension of rows that logits come from
        self.rows = "S" if not kind.batch else t if kind.head == "all" else "R"
        shapes: dict[str, tuple[int | str, ...]] = {
            "ids": (t,), "positions": (t,), "slots": (t,), "block_table": ("S", "B"),
            "query_starts": ("S+1",), "seq_lens": ("S",)}
        self.inputs = {name: self.graph.input(name, TensorSpec(shape, i32))
                       for name, shape in shapes.items()}
        if kind.batch:
            self.kept = self.graph.state(KEPT_TOKENS, TensorSpec(("N",), i32))
            self.inputs["ids"] = self.one("pick_ids", self.inputs["ids"], self.kept,
                                          name="pick_ids")
        self.inv_freq = self.weight(INV_FREQ, config.head_dim // 2)

    def add(self, op: str, *inputs: Value | None, name: str, **attrs: Any) -> Any:  # noqa: ANN401 - as Graph.add
        """Call Graph.add with the node named under the current path."""
        full = f"{self.path}.{name}" if self.path else name
        return self.graph.add(op, *inputs, name=full, **attrs)

    def one(self, op: str, *inputs: Value | None, name: str, **attrs: Any) -> Value:  # noqa: ANN401
        """Call `add` for an op with one result."""
        value: Value = self.add(op, *inputs, name=name, **attrs)
        return value

    def weight(self, name: str, *shape: int) -> Value:
        """Add a weight of the shape that the family declares; one that it computes itself, of
        `shape`. Raises CheckpointError if it has another."""
        shape, spec = shape or self.shape(name), self.weights.spec(name)
        if spec.shape != shape:
            raise CheckpointError(f"tensor {name} has shape {list(spec.shape)}, the configuration "
                                  f"asks for {list(shape)}")
        return self.graph.weight(name, spec)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape; a tied head has the embedding's.

        Raises PluginError where the family does not declare it.
        """
        name = EMBEDDING if name == HEAD and self.config.tied_embeddings else name
        if name not in self.tensors:
            raise PluginError(f"{self.config.architecture} uses the tensor {name}, which its "
                              "`tensors` does not list")
        return self.tensors[name].shape

    def embed(self) -> Value:
        """Embed ids [T] → [T, hidden] in the activations' dtype."""
        ids, dtype = self.inputs["ids"], self.activations.short
        layout = self.weights.quantized.get(EMBEDDING)
        if layout is None:
            return self.one("embedding", ids, self.weight(EMBEDDING), name="embed", out_dtype=dtype)
        return self.one(layout.lookup, ids, *self._parts(EMBEDDING, layout), name="embed",
                        out_dtype=dtype, **layout.attrs, columns=self.shape(EMBEDDING)[1])

    def norm(self, x: Value, name: str) -> Value:
        """Add the rms_norm whose weight is `name.weight` at the current path."""
        full = f"model.{self.path}.{name}.weight" if self.path else f"model.{name}.weight"
        return self.one("rms_norm", x, self.weight(full), name=name, eps=self.config.norm_eps)

    def linear(self, x: Value, name: str) -> Value:
        """Add a projection of the current layer, with a bias if the family declares one."""
        prefix = f"model.{self.path}.{name}"
        bias = f"{prefix}.bias"
        return self.product(x, f"{prefix}.weight", name.rpartition(".")[2],
                            self.weight(bias) if bias in self.tensors else None)

    def product(self, x: Value, weight: str, name: str, bias: Value | None = None,
                out_dtype: str | None = None) -> Value:
        """Add x @ weight.T + bias with a plain or a quantised weight of that name."""
        layout = self.weights.quantized.get(weight)
        if layout is None:
            return self.one("linear", x, self.weight(weight), bias, name=name, out_dtype=out_dtype)
        return self.one(layout.op, x, *self._parts(weight, layout), bias, name=name,
                        out_dtype=out_dtype, **layout.attrs)

    def _parts(self, matrix: str, layout: Layout) -> list[Value | None]:
        """Add the parts of a quantised matrix, absent ones as None."""
        parts = {name: self.weight(f"{matrix}.{name}", *spec.sizes)
                 for name, spec in layout.parts(*self.shape(matrix)).items()}
        return [parts.get(name) for name in layout.names]

    def needed(self, **values: Value) -> list[Value]:
        """Select the rows of values [T, ...] that the logits come from, in the last layer: what
        follows the attention there is computed for these alone."""
        if self.kind.head != "last" or self.kind.loop:
            return list(values.values())
        rows = self._input("last_rows", i32)
        return [self.one("embedding", rows, v, name=f"last_rows_of_{name}")
                for name, v in values.items()]

    def finish(self, x: Value) -> None:
        """Add the final norm, the logits in float32 and, if asked for, the next token."""
        self.path = ""
        g = self.graph
        if self.kind.head == "none":  # the last layer's keys and values are all that is needed
            g.prune()
            return
        tied = self.config.tied_embeddings and HEAD not in self.weights.quantized
        logits = self.product(self.norm(x, "norm"), EMBEDDING if tied else HEAD, "lm_head",
                              out_dtype=f32.short)
        g.output("logits", logits)
        if self.kind.sampling != "none":
            self._sample(logits)

    def _input(self, name: str, dtype: DType, *shape: int | str) -> Value:
        """Declare an input of numbers for each row that logits come from."""
        return self.graph.input(name, TensorSpec((self.rows, *shape), dtype))

    def _sample(self, logits: Value) -> None:
        g, kind = self.graph, self.kind
        adjusted = logits if kind.adjust == "none" else self._adjusted(logits)
        if kind.sampling == "argmax":
            token = self.add("argmax", adjusted, name="argmax")
        else:
            numbers = [self._input(n, d) for n, d in (
                ("temperature", f32), ("top_k", i32), ("top_p", f32), ("min_p", f32),
                ("penalty", f32))]
            numbers.append(self._input("seeds", i32, 2))
            # the sampled token will stand at this position, which is seq_lens in a step of one row
            # for each sequence
            places = (self._input("sample_positions", i32) if kind.batch
                      else self.inputs["seq_lens"])
            seen = (g.state(SEEN, TensorSpec(("S", self.config.vocab_size), i8))
                    if kind.sampling == "sample_seen" else None)
            _, token = self.add("sample", adjusted, *numbers, places, seen, name="sample")
        g.output("token", token)
        if kind.loop:
            inputs = (self.inputs[n] for n in ("block_table", "ids", "positions", "slots",
                                               "seq_lens"))
            self.add("advance", token, *inputs, name="advance", block_size=BLOCK_SIZE)
        if kind.batch:
            self.add("put_tokens", token, self._input("places", i32), self.kept,
                     name="put_tokens")
        if kind.top is not None:
            self._log_probs(logits, token, kind.top)

    def _adjusted(self, logits: Value) -> Value:
        """Add what changes single logits: penalties, biases, and what a grammar forbids."""
        g, words = self.graph, -(-self.config.vocab_size // 32)
        listed = [g.input("adjust_starts", TensorSpec((f"{self.rows}+1",), i32)),
                  *(g.input(f"adjust_{n}", TensorSpec(("E",), d))
                    for n, d in (("ids", i32), ("penalties", f32), ("add", f32)))]
        mask = self._input("adjust_mask", i32, words) if self.kind.adjust == "mask" else None
        return self.one("adjust_logits", logits, *listed, mask, name="adjust_logits")

    def _log_probs(self, logits: Value, token: Value, top: int) -> None:
        """Add the log-probability of each row's target: the sampled token, unless one is given."""
        target = self.one("pick_ids", self._input("targets", i32), token, name="targets_or_sampled")
        results = self.add("log_probs", logits, target, name="log_probs", n=top)
        for name, value in zip(("chosen", "rank", "top_ids", "top"), results, strict=True):
            self.graph.output(name, value)
