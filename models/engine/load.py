"""models.load: from a path or a name to a Model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from core.conformance.determinism import DeterminismRule
from core.conformance.lock import Lock
from core.errors import CheckpointError, DtypeError, OptionError, TokenizerError
from core.ir.fusion import FusedOp
from core.ir.graph import Graph
from core.ir.match import find_matches
from core.ir.op import find_op
from core.plan.policy import Override, Rule, Selector
from core.plan.weights import Progress, WeightStore, no_progress
from core.plugins.backend import BackendOptions
from core.plugins.registry import Registry, default_registry, split_backends
from core.runtime.session import Session
from core.runtime.step import GraphKind
from core.tensor.dtype import DType, as_dtype, bf16, f16, f32
from models.architectures.base import find_architecture
from models.architectures.tensors import EMBEDDING, HEAD
from models.checkpoints.base import Checkpoint, read_checkpoint
from models.checkpoints.lazy import abstract_arrays
from models.checkpoints.quantization import Quantization
from models.engine.config import Options, Setting
from models.engine.memory import check_fits
from models.engine.model import Model

DEFAULT_CONTEXT = 4096  # tokens, where the model allows more and the user names no number
KV_DTYPES = ("f32", "f16", "bf16", "i8")


def load(path_or_name: str | Path, backend: str | Sequence[str] = "cpu_numpy", *,
         dtype: str | None = None, quantize: str | None = None, kv_dtype: str | None = None,
         max_context: int | None = None, kernels: Sequence[str] = (), fusion: bool = True,
         chunk: int = 512, group_size: int | None = None, keep: str | Sequence[str] = (),
         quantize_only: str | Sequence[str] = (), device: int | None = None,
         threads: int | None = None, allow_tf32: bool | None = None,
         deterministic: bool = False, lock: str | Path | None = None, mmap: bool = True,
         registry: Registry | None = None,
         progress: Progress = no_progress) -> Model:
    """Load a model.

    backend      strict: every op must have a kernel there. Several, as "a,b": fall back in order
    dtype        f32, f16 or bf16 for activations (default: the backend's choice). Weights keep
                 their stored dtype unless it is wider than, or another 16-bit type than, this one
    quantize     int8, int4 or int4-symmetric: the projections and the output head are quantised
                 while loading
    kv_dtype     f32, f16, bf16 or i8 for the KV cache (default: the activations')
    max_context  tokens the KV cache holds (default: the model's limit, at most 4096)
    kernels      overrides such as "attention=cpu_numpy"; see core.plan.policy.Override
    fusion       whether fused kernels may take several nodes at once
    chunk        the most tokens of a prompt that are computed at once
    group_size, keep, quantize_only  the weights that share a scale; which matrices stay in full
                 precision, or which alone are quantised: see checkpoints.quantization
    deterministic  only kernels that declare, and show, equal bits from run to run
    lock         a lock file: only its kernels, from unchanged packages; see core.conformance.lock
    mmap         CPU kernels read stored weights where the file is mapped; False: from memory of
                 their own, which takes longer to fill and less long to read
    device, threads, allow_tf32   see core.plugins.backend.BackendOptions; a `registry` has its own

    Raises an InputError, BackendError, LockError or NoKernelError that says what to do.
    """
    if registry is None:
        registry = default_registry(BackendOptions(device, threads, allow_tf32))
        registry.check_options(split_backends(backend))
    options = Options(backend, dtype, quantize, kv_dtype, max_context, kernels, fusion, chunk,
                      group_size, keep, quantize_only, deterministic, lock, mmap)
    return open_checkpoint(read_checkpoint(path_or_name, registry), options, registry, progress)


def settle(checkpoint: Checkpoint, options: Options, registry: Registry,
           default_dtype: Callable[[DType], DType]) -> Setting:
    """`default_dtype` gives the activations' dtype for the stored one, where the user names none.
    Raises an InputError for options or a configuration that cannot be used."""
    architecture = find_architecture(_architecture_name(checkpoint), registry)
    config = architecture.config(checkpoint.config)
    config = replace(config, rope=replace(config.rope, interleaved=checkpoint.interleaved))
    if checkpoint.tokenizer.size > config.vocab_size:
        raise TokenizerError(
            f"{checkpoint.path}: the tokenizer has {checkpoint.tokenizer.size} ids, the model's "
            f"vocabulary {config.vocab_size}; the tokenizer belongs to another model")
    if options.chunk < 1:
        raise OptionError(f"chunk is {options.chunk}, expected at least 1 token")
    activations = _float_dtype(options.dtype) or default_dtype(_stored_dtype(checkpoint))
    cache = _cache_dtype(options.kv_dtype) or activations
    context = _context(config.max_positions, options.max_context)
    names = split_backends(options.backend)
    quantization = Quantization.parse(options.quantize, options.group_size, options.keep,
                                      options.quantize_only)
    selector = Selector(registry, names, tuple(Override.parse(text) for text in options.kernels))
    return Setting(checkpoint, options, architecture, config, selector, activations, cache, context,
                   quantization)


def open_checkpoint(checkpoint: Checkpoint, options: Options, registry: Registry,
                    progress: Progress = no_progress) -> Model:
    """`load` for a checkpoint that has been read already, or made."""
    first = registry.backend(split_backends(options.backend)[0])
    setting = settle(checkpoint, options, registry, first.activation_dtype)
    abstract = setting.abstract_weights()
    build, overrides = setting.builder(abstract), setting.selector.overrides
    graphs = [build(GraphKind("last", "argmax", loop=True)), build(GraphKind("last", "sample"))]
    _check_complete(graphs[0], abstract, checkpoint)
    for override in overrides:
        override.check(registry)
    used = [*setting.selector.backends, *(o.backend for o in overrides)]
    setting = replace(setting, selector=replace(setting.selector,
                                                rules=_rules(options, registry, used)))
    _check_used(overrides, graphs, fusion=options.fusion)
    check_fits(setting, abstract, first)
    if setting.config.tied_embeddings and HEAD in checkpoint.arrays:
        checkpoint.notes.append(f"{HEAD} in the file is not used: the configuration ties it to "
                                "the embedding")
    weights = setting.weights(progress)
    session = Session(setting.builder(weights), weights, setting.selector, chunk=options.chunk,
                      vocab_size=setting.config.vocab_size, max_context=setting.context,
                      fusion=options.fusion)
    return Model(checkpoint, session, setting.config)


def _rules(options: Options, registry: Registry, backends: Sequence[str]) -> tuple[Rule, ...]:
    """What restricts the choice besides the preference."""
    rules: list[Rule] = []
    if options.lock is not None:
        lock = Lock.read(Path(options.lock))
        lock.check(registry, list(dict.fromkeys(backends)))
        rules.append(lock)
    if options.deterministic:
        rules.append(DeterminismRule(registry))
    return tuple(rules)


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
    return as_dtype(abstract_arrays(checkpoint.arrays)[EMBEDDING].dtype)


def _float_dtype(text: str | None) -> DType | None:
    if text is None:
        return None
    try:
        found = as_dtype(text)
    except DtypeError:
        found = None
    if found not in (f32, f16, bf16):
        raise OptionError(f"--dtype {text!r}: expected f32, f16 or bf16")
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


def _check_used(overrides: Sequence[Override], graphs: Sequence[Graph], *, fusion: bool) -> None:
    """An override that applies nowhere is a mistake: a wrong layer, or a model without the op."""
    for override in overrides:
        op = find_op(override.op)
        if isinstance(op, FusedOp) and not fusion:
            raise OptionError(f"kernel override {override.text!r} names a fused op, and fusion is "
                              "off (--no-fusion)")
        places = [(op.name, max(m.nodes, key=g.nodes.index).name) for g in graphs
                  for m in find_matches(op, g)] if isinstance(op, FusedOp) else [
                  (n.op.name, n.name) for g in graphs for n in g.nodes]
        if not any(override.matches(*place) for place in places):
            raise OptionError(f"kernel override {override.text!r} applies to no node of this "
                              "model; --explain graph lists the nodes")


def _check_complete(graph: Graph, weights: WeightStore, checkpoint: Checkpoint) -> None:
    """A tensor that no node reads means that the graph is not the model in the file."""
    used = {v.name for v in graph.roots("weight")}
    unused = [n for n in weights.arrays if n not in used and not n.endswith("rotary_emb.inv_freq")]
    if unused:
        raise CheckpointError(
            f"{checkpoint.path}: {len(unused)} tensors have no place in the configured model, such "
            f"as {', '.join(sorted(unused)[:4])}; config.json does not describe these weights")
