"""models.load: from a path or a name to something that generates text."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np

from core.decoding import GraphKind, Sampling
from core.dtype import DType, as_dtype, bf16, f16, f32
from core.errors import CheckpointError, DtypeError, OptionError, PromptError, TokenizerError
from core.graph import Graph
from core.ledger import Ledger
from core.registry import Registry, default_registry, split_backends
from core.select import Override, Selector
from core.session import Session
from core.tensor import Array
from core.weights import Progress, WeightStore, no_progress
from models.architecture import find_architecture
from models.builder import EMBEDDING, HEAD, INV_FREQ
from models.checkpoint import Checkpoint, read_checkpoint
from models.config import ModelConfig
from models.generate import Generation
from models.prepare import convert, quantize_weights
from models.rope import inverse_frequencies

DEFAULT_CONTEXT = 4096  # tokens, where the model allows more and the user names no number
KV_DTYPES = ("f32", "f16", "bf16", "i8")


class Model:
    """A loaded model. Close it, or use it in a `with` statement, to free its memory."""

    def __init__(self, checkpoint: Checkpoint, session: Session, config: ModelConfig) -> None:
        self.config = config
        self.tokenizer = checkpoint.tokenizer
        self.stop_ids = frozenset(checkpoint.eos_ids)
        self.path = checkpoint.path
        self.notes = checkpoint.notes
        self.session = session

    @property
    def ledger(self) -> Ledger:
        """Which kernel runs each node, and why others do not."""
        return self.session.ledger

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """Token ids of a prompt; ids are checked against the vocabulary. Raises PromptError."""
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else [int(i) for i in prompt]
        if not ids or (isinstance(prompt, str) and not prompt):
            raise PromptError("the prompt is empty: give some text, or --prompt-ids")
        wrong = [i for i in ids if not 0 <= i < self.config.vocab_size]
        if wrong:
            raise PromptError(f"token ids {wrong[:5]} are outside the vocabulary: expected 0 to "
                              f"{self.config.vocab_size - 1}")
        return ids

    def logits(self, ids: Sequence[int]) -> Array:
        """float32 [len(ids), vocab_size]: the logits after each token of one sequence."""
        self.session.truncate(0)
        result = self.session.prefill(self.encode(ids), head="all")
        assert result is not None  # head="all" returns logits
        return result

    def generate(self, prompt_or_ids: str | Sequence[int], *, max_new_tokens: int = 256,
                 temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0,
                 repetition_penalty: float = 1.0, stop: str | Sequence[str] = (),
                 seed: int | None = None, reuse: bool = False) -> Generation:
        """Start generating; iterate over the result for pieces of text as they appear.

        temperature 0 is greedy. A seed fixes what is drawn, on any backend; without one it is
        random.
        With `reuse`, cache entries of a prefix shared with the previous call are kept.
        Raises PromptError or OptionError before anything is computed.
        """
        ids = self.encode(prompt_or_ids)
        _check_sampling(max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty)
        if len(ids) > self.session.max_context:
            raise PromptError(f"the prompt has {len(ids)} tokens, the context holds "
                              f"{self.session.max_context}; shorten it, or raise --max-context")
        self.session.truncate(self._shared_prefix(ids) if reuse else 0)
        drawn = secrets.randbits(64) if seed is None else seed
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, drawn)
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        self._last = Generation(self.session, self.tokenizer, ids, max_new_tokens, sampling,
                                self.stop_ids, stops)
        return self._last

    _last: Generation | None = None

    def _shared_prefix(self, ids: list[int]) -> int:
        before = [*self._last.prompt_ids, *self._last.tokens] if self._last else []
        cached = before[:self.session.length]
        same = next((i for i, (a, b) in enumerate(zip(cached, ids, strict=False)) if a != b),
                    min(len(cached), len(ids)))
        return min(same, len(ids) - 1)  # at least one token must be computed

    def close(self) -> None:
        """Free everything that the model holds on its devices."""
        self.session.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def load(path_or_name: str | Path, backend: str | Sequence[str] = "cpu_numpy", *,
         dtype: str | None = None, quantize: str | None = None, kv_dtype: str | None = None,
         max_context: int | None = None, kernels: Sequence[str] = (), fusion: bool = True,
         chunk: int = 512, registry: Registry | None = None, progress: Progress = no_progress,
         ) -> Model:
    """Load a model.

    backend      strict: every op must have a kernel there. Several, as "a,b": fall back in order
    dtype        f32, f16 or bf16 for activations (default: the backend's choice). Weights keep
                 their stored dtype unless it is wider than, or another 16-bit type than, this one
    quantize     int8 or int4: the projections and the output head are quantised while loading
    kv_dtype     f32, f16, bf16 or i8 for the KV cache (default: the activations')
    max_context  tokens the KV cache holds (default: the model's limit, at most 4096)
    kernels      overrides such as "attention=cpu_numpy"; see core.select.Override

    Raises an InputError, BackendError or NoKernelError that says what to do.
    """
    registry = registry or default_registry()
    return open_checkpoint(read_checkpoint(path_or_name, registry), backend, dtype=dtype,
                           quantize=quantize, kv_dtype=kv_dtype, max_context=max_context,
                           kernels=kernels, fusion=fusion, chunk=chunk, registry=registry,
                           progress=progress)


def open_checkpoint(checkpoint: Checkpoint, backend: str | Sequence[str], *, dtype: str | None,
                    quantize: str | None, kv_dtype: str | None, max_context: int | None,
                    kernels: Sequence[str], fusion: bool, chunk: int, registry: Registry,
                    progress: Progress) -> Model:
    """`load` for a checkpoint that has been read, or made."""
    architecture = find_architecture(_architecture_name(checkpoint), registry)
    config = architecture.config(checkpoint.config)
    config = replace(config, rope=replace(config.rope, interleaved=checkpoint.interleaved))
    if checkpoint.tokenizer.size > config.vocab_size:
        raise TokenizerError(
            f"{checkpoint.path}: the tokenizer has {checkpoint.tokenizer.size} ids, the model's "
            f"vocabulary {config.vocab_size}; the tokenizer belongs to another model")
    names = split_backends(list(backend) if not isinstance(backend, str) else backend)
    first = registry.backend(names[0])
    stored = _stored_dtype(checkpoint)
    activations = _float_dtype("--dtype", dtype) or first.activation_dtype(stored)
    cache = _cache_dtype(kv_dtype) or activations
    context = _context(config.max_positions, max_context)
    overrides = tuple(Override.parse(text) for text in kernels)
    for override in overrides:
        override.check(registry)
    arrays = convert(checkpoint.arrays, checkpoint.quantized, activations, progress)
    if config.tied_embeddings and HEAD in arrays:
        checkpoint.notes.append(f"{HEAD} in the file is not used: the configuration ties it to "
                                "the embedding")
        del arrays[HEAD]
    weights = quantize_weights(arrays, checkpoint.quantized, quantize, config.tied_embeddings,
                               progress)
    weights.add(INV_FREQ, inverse_frequencies(config.rope, config.head_dim))

    def build(kind: GraphKind) -> Graph:
        return architecture.build(config, weights, kind, activations=activations, kv_dtype=cache)

    _check_complete(build(GraphKind("last", "argmax")), weights, checkpoint)
    session = Session(build, weights, Selector(registry, names, overrides), chunk=chunk,
                      vocab_size=config.vocab_size, max_context=context, fusion=fusion)
    return Model(checkpoint, session, config)


def _architecture_name(checkpoint: Checkpoint) -> str:
    names = checkpoint.config.get("architectures", list)
    if len(names) != 1 or not isinstance(names[0], str):
        raise CheckpointError(f"{checkpoint.config.where}: architectures is {names!r}, expected "
                              "one name")
    return names[0]


def _stored_dtype(checkpoint: Checkpoint) -> DType:
    if EMBEDDING not in checkpoint.arrays:
        raise CheckpointError(f"{checkpoint.path}: tensor {EMBEDDING} is missing; the checkpoint "
                              f"holds {len(checkpoint.arrays)} tensors")
    return as_dtype(checkpoint.arrays[EMBEDDING].dtype)


def _float_dtype(option: str, text: str | None) -> DType | None:
    if text is None:
        return None
    try:
        found = as_dtype(text)
    except DtypeError:
        found = None
    if found not in (f32, f16, bf16):
        raise OptionError(f"{option} {text!r}: expected f32, f16 or bf16")
    return found


def _cache_dtype(text: str | None) -> DType | None:
    if text is None:
        return None
    try:
        found = as_dtype("int8" if text in ("i8", "int8") else text)
    except DtypeError:
        found = None
    if found is None or found.short not in KV_DTYPES:
        raise OptionError(f"--kv-dtype {text!r}: expected one of {', '.join(KV_DTYPES)}")
    return found


def _context(limit: int, asked: int | None) -> int:
    if asked is None:
        return min(limit, DEFAULT_CONTEXT)
    if not 0 < asked <= limit:
        raise OptionError(f"--max-context {asked}: expected 1 to {limit}, the positions that the "
                          "model was made for")
    return asked


def _check_complete(graph: Graph, weights: WeightStore, checkpoint: Checkpoint) -> None:
    """A tensor that no node reads means that the graph is not the model in the file."""
    used = {v.name for v in graph.roots("weight")}
    unused = [n for n in weights.arrays if n not in used and not n.endswith("rotary_emb.inv_freq")]
    if unused:
        raise CheckpointError(
            f"{checkpoint.path}: {len(unused)} tensors have no place in the configured model, such "
            f"as {', '.join(sorted(unused)[:4])}; config.json does not describe these weights")


def _check_sampling(max_new_tokens: int, temperature: float, top_k: int, top_p: float, min_p: float,
                    repetition_penalty: float) -> None:
    for name, value, ok, expected in (
            ("max_new_tokens", max_new_tokens, max_new_tokens >= 1, "at least 1"),
            ("temperature", temperature, 0 <= temperature < np.inf, "0 (greedy) or more"),
            ("top_k", top_k, top_k >= 0, "0 (off) or more"),
            ("top_p", top_p, 0 < top_p <= 1, "above 0, at most 1 (off)"),
            ("min_p", min_p, 0 <= min_p <= 1, "0 (off) to 1"),
            ("repetition_penalty", repetition_penalty, 0 < repetition_penalty < np.inf,
             "above 0; 1 is off")):
        if not ok:
            raise OptionError(f"{name} is {value}, expected {expected}")
