"""EngineConfig: holds what a checkpoint and options settle before a weight is touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial

from core.errors import BackendError, CheckpointError, DtypeError, OptionError, TokenizerError
from core.installed.registry import Registry, split_backends
from core.ir.graph import Graph
from core.ops.quantized.layouts import Layout, expand, part_names
from core.ops.quantized.quantize import Quantized
from core.plan.policy import KernelPolicy, Override
from core.plan.weights import (
    Progress,
    WeightStore,
    no_progress,
)
from core.plugins.backend import Backend
from core.reading import MIB
from core.runtime.step import GraphKind
from core.tensor.dtype import DType, as_dtype, f32
from core.tensor.tensor import Array
from models.architectures.base import Architecture, find_architecture
from models.architectures.config import ModelConfig
from models.architectures.layers import INV_FREQ
from models.architectures.rope import inverse_frequencies
from models.architectures.tensors import EMBEDDING, HEAD
from models.checkpoints.base import Checkpoint
from models.checkpoints.lazy import abstract_arrays, abstract_cast, abstract_quantize
from models.checkpoints.quantization import Quantization
from models.checkpoints.quantize import (
    Cast,
    Quantize,
    cast,
    choose_weights,
    convert,
    needs_cast,
    quantize_weights,
)
from models.checkpoints.shapes import arrange_whole
from models.engine.options import DTYPES, KV_DTYPES, LoadOptions
from models.engine.quantizing import quantizer
from models.engine.table import Expand, abstract_expand, expand_table, why_expanded

DEFAULT_CONTEXT = 4096  # tokens, where the model allows more and the user names no number


@dataclass(frozen=True)
class EngineConfig:
    """Say how a model is computed.

    activations, cache  dtypes of the activations and of the KV cache
    context             tokens that the KV cache holds
    arrays, quantized   the checkpoint's, under the family's names
    """

    checkpoint: Checkpoint
    options: LoadOptions
    architecture: Architecture
    config: ModelConfig
    policy: KernelPolicy
    activations: DType
    cache: DType
    context: int
    quantization: Quantization | None
    arrays: Mapping[str, Array]
    quantized: Mapping[str, Layout]

    @cached_property
    def _graphs(self) -> dict[tuple[GraphKind, DType], Graph]:
        return {}

    def graph(self, kind: GraphKind, cache: DType | None = None) -> Graph:
        """Return the graph of a step, declared once for each kind; `cache`: another KV dtype."""
        key = (kind, cache or self.cache)
        if key not in self._graphs:
            self._graphs[key] = self.architecture.build(
                self.config, self.abstract, kind, kv_dtype=key[1], activations=self.activations)
        return self._graphs[key]

    def weights(self, progress: Progress = no_progress) -> WeightStore:
        """Return the weights, converted and quantised as asked for; note a table expanded for
        look-ups."""
        if self.table_expanded is not None:
            held, names = abstract_arrays(self.arrays), part_names(
                EMBEDDING, self.quantized[EMBEDDING])
            stored = sum(held[n].nbytes for n in names if n in held)
            _note(self.checkpoint, f"the embedding was expanded, {self.table_expanded}: "
                  f"{self.abstract.arrays[EMBEDDING].nbytes / MIB:,.1f} MiB for look-ups in place "
                  f"of {stored / MIB:,.1f}")
        store = self._store(self.arrays, progress, cast, partial(
            Quantization.apply, by=quantizer(self.policy.backends[0], self.policy.primary)), expand)
        store.moves = not self.options.mmap
        return store

    @cached_property
    def abstract(self) -> WeightStore:
        """Hold the same shapes and dtypes; nothing is read, converted or quantised."""
        return self._store(abstract_arrays(self.arrays), no_progress, abstract_cast,
                           abstract_quantize, abstract_expand)

    @cached_property
    def table_expanded(self) -> str | None:
        """Return why an embedding in codes is expanded; None where it stays, or has no codes."""
        layout = self.quantized.get(EMBEDDING)
        return None if layout is None else why_expanded(
            self.policy, layout, (self.config.vocab_size, self.config.hidden_size),
            self.activations, self.chunk)

    @cached_property
    def chunk(self) -> int:
        """Return the most tokens of a prompt that are computed at once.

        Unless the user names it, it is what the first backend asks for, halved while the
        activations of a layer take over a 32nd of the memory that weights and KV cache leave.
        """
        if self.options.chunk is not None:
            return self.options.chunk
        try:
            backend = self.policy.primary
        except BackendError:  # models.plan estimates without it
            return Backend.prompt_chunk
        chunk, free = backend.prompt_chunk, backend.allocator.available()
        c = self.config
        width = 3 * (c.intermediate_size + c.hidden_size) + (c.heads + 2 * c.kv_heads) * c.head_dim
        if free is not None:
            cache = 2 * c.layers * c.kv_heads * c.head_dim * self.context * self.cache.itemsize
            free -= cache + sum(a.nbytes for a in abstract_arrays(self.arrays).values())
            while (chunk > Backend.prompt_chunk
                   and 32 * chunk * width * self.activations.itemsize > free):
                chunk //= 2
        return chunk

    def _store(self, stored: Mapping[str, Array], progress: Progress, cast: Cast,
               quantize: Quantize, expand: Expand) -> WeightStore:
        tied, layouts = self.config.tied_embeddings, self.quantized
        if self.table_expanded is not None:
            stored, layouts = expand_table(stored, layouts, self.config.hidden_size, tied=tied,
                                           expand=expand)
        stored = {n: stored[n] for n in stored if not tied or n != HEAD}
        chosen = choose_weights(stored, layouts, self.quantization, tied)
        arrays = convert(stored, layouts, self.activations, progress, cast, chosen)

        def converted(how: Quantization, weight: Array) -> Quantized:
            return quantize(how, cast(weight, self.activations.numpy)
                            if needs_cast(weight, self.activations) else weight)
        store = quantize_weights(arrays, layouts, self.quantization, tied, progress, converted)
        store.add(INV_FREQ, inverse_frequencies(self.config.rope, self.config.head_dim))
        return store


def _check_tokenizer(checkpoint: Checkpoint, vocab_size: int) -> None:
    """Note added tokens beyond the vocabulary. Raises TokenizerError for ordinary ones, which are
    another model's."""
    tokenizer = checkpoint.tokenizer
    if tokenizer.base_size > vocab_size:
        raise TokenizerError(
            f"{checkpoint.path}: the tokenizer has {tokenizer.base_size} ids, the model's "
            f"vocabulary {vocab_size}; the tokenizer belongs to another model")
    beyond = [f"{tokenizer.token(i)!r} ({i})" for i in range(vocab_size, tokenizer.size)]
    note = (f"the model has no embedding for {', '.join(beyond[:5])}"
            f"{f' and {len(beyond) - 5} more' if beyond[5:] else ''}: a prompt with such a token "
            "is an error")
    if beyond:
        _note(checkpoint, note)


def settle(checkpoint: Checkpoint, options: LoadOptions, registry: Registry,
           default_dtype: Callable[[DType], DType]) -> EngineConfig:
    """Settle everything that follows from the header and the options.

    `default_dtype` gives the activations' dtype for the stored one, where the user names none.
    Raises an InputError for options or a configuration that cannot be used.
    """
    architecture = find_architecture(_architecture_name(checkpoint), registry)
    config = architecture.config(checkpoint.config)
    context = _context(config, options.max_context, checkpoint)
    config = replace(config, rope=replace(config.rope, interleaved=checkpoint.interleaved,
                                          context=context))
    _check_tokenizer(checkpoint, config.vocab_size)
    if options.chunk is not None and options.chunk < 1:
        raise OptionError(f"chunk is {options.chunk}, expected at least 1 token")
    tensors = architecture.tensors(config)
    arrays, quantized = arrange_whole(checkpoint, tensors, tied=config.tied_embeddings)
    stored = f32 if EMBEDDING in quantized else as_dtype(abstract_arrays(arrays)[EMBEDDING].dtype)
    activations = _dtype("--dtype", options.dtype, DTYPES) or default_dtype(stored)
    cache = _dtype("--kv-dtype", options.kv_dtype, KV_DTYPES) or activations
    quantization = Quantization.parse(options.quantize, options.group_size, options.keep,
                                      options.quantize_only)
    policy = KernelPolicy(registry, split_backends(options.backend),
                          tuple(Override.parse(text) for text in options.kernels),
                          fusion=options.fusion)
    return EngineConfig(checkpoint, options, architecture, config, policy, activations, cache,
                        context, quantization, arrays, quantized)


def _architecture_name(checkpoint: Checkpoint) -> str:
    names = checkpoint.config.get("architectures", list)
    if len(names) != 1 or not isinstance(names[0], str):
        raise CheckpointError(f"{checkpoint.config.where}: architectures is {names!r}, expected "
                              "one name")
    return names[0]


def _dtype(flag: str, text: str | None, known: tuple[str, ...]) -> DType | None:
    if text is None:
        return None
    try:
        found = as_dtype("int8" if text == "i8" else text)
    except DtypeError:
        found = None
    if found is None or found.short not in known:
        raise OptionError(f"{flag} {text!r}: expected one of {', '.join(known)}")
    return found


def _context(config: ModelConfig, asked: int | None, checkpoint: Checkpoint) -> int:
    """Return how many tokens the context has, and note what limits it. Raises OptionError."""
    limit, rope = config.max_positions, config.rope
    if limit < rope.positions:
        _note(checkpoint, f"the context ends at {limit} of {rope.positions} tokens: "
                          f"{config.limit}")
    if asked is None:
        return min(limit, DEFAULT_CONTEXT, rope.original if rope.scaling.switches else limit)
    if not 0 < asked <= limit:
        raise OptionError(f"--max-context {asked}: expected 1 to {limit}, the positions that the "
                          f"model was made for{f'; {config.limit}' if config.limit else ''}")
    if rope.scaling.switches and asked > rope.original:
        _note(checkpoint, f"rope {rope.type!r} uses its table for contexts beyond "
                          f"{rope.original} tokens from the first token on; transformers does for "
                          "longer sequences alone: take a shorter --max-context for short ones")
    return asked


def _note(checkpoint: Checkpoint, text: str) -> None:
    """Add a note, once however often a checkpoint is settled."""
    if text not in checkpoint.notes:
        checkpoint.notes.append(text)
