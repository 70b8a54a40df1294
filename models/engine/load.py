"""models.load, models.load_engine: make a Model or an Engine from a path or a name."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.conformance.rules.determinism import DeterminismRule
from core.conformance.rules.invariance import InvariantPolicy
from core.conformance.rules.lock import Lock
from core.errors import OptionError
from core.installed.registry import Registry
from core.ir.fusion import FusedOp
from core.ir.graph import Graph
from core.ir.match import find_matches
from core.ir.op import find_op
from core.plan.policy import KernelPolicy, Override, Rule
from core.plan.weights import Progress, no_progress
from core.reading import shown
from core.runtime.session import Session
from core.runtime.step import DECODE, PROMPT, GraphKind
from models.checkpoints.base import Checkpoint, read_checkpoint
from models.engine.config import EngineConfig, settle
from models.engine.memory import check_fits
from models.engine.model import Model
from models.engine.options import EngineOptions, LoadOptions
from models.serving.sampling_options import check_call

if TYPE_CHECKING:
    from models.serving.engine import Engine


def load(path_or_name: str | Path, options: LoadOptions | None = None, *,
         registry: Registry | None = None, progress: Progress = no_progress,
         **overrides: Any) -> Model:  # noqa: ANN401 - fields of LoadOptions
    """Load a model.

    options    how it is computed; `overrides` replace its fields, as in
               load("stories-llama2", backend="cpu_numpy", kv_dtype="f16")
    registry   what is installed; it has its own `device`, `threads`, `allow_tf32` and plugins

    Raises an InputError, BackendError, LockError or NoKernelError that says what to do.
    """
    settled, registry = _settled(options, overrides, registry, progress)
    return open_checkpoint(read_checkpoint(path_or_name, registry), settled, registry, progress)


def open_checkpoint(checkpoint: Checkpoint, options: LoadOptions, registry: Registry,
                    progress: Progress = no_progress) -> Model:
    """Load a checkpoint that has been read already, or made. Raises as `load`."""
    config = settle_checkpoint(checkpoint, options, registry)
    check_fits(config)
    session = Session(config.graph, config.weights(progress), config.policy, chunk=config.chunk,
                      vocab_size=config.config.vocab_size, max_context=config.context)
    return Model(config, session)


def load_engine(path_or_name: str | Path, options: LoadOptions | None = None,
                engine_options: EngineOptions | None = None, *, registry: Registry | None = None,
                progress: Progress = no_progress,
                **overrides: Any) -> Engine:  # noqa: ANN401 - fields of the two kinds of options
    """Load a model that serves many requests at once.

    options, engine_options  how it is computed, and for how many; `overrides` replace fields of
                             both, as in load_engine("stories-llama2", max_num_seqs=8).
                             `max_model_len` is `max_context`

    Raises as `load`.
    """
    from models.engine.pool import open_engine  # with serving, which one sequence does not need
    if "max_model_len" in overrides:
        if "max_context" in overrides:
            raise OptionError("max_model_len and max_context are two names of one option; give one")
        overrides["max_context"] = overrides.pop("max_model_len")
    own = {f.name: overrides.pop(f.name) for f in fields(EngineOptions) if f.name in overrides}
    if not isinstance(engine_options, EngineOptions | None):
        raise OptionError(f"engine_options is {shown(engine_options)}, expected EngineOptions")
    settled, registry = _settled(options, overrides, registry, progress)
    if settled.chunk is not None:
        raise OptionError("chunk has no meaning for an engine: max_num_batched_tokens says how "
                          "many tokens a step has; give that instead")
    config = settle_checkpoint(read_checkpoint(path_or_name, registry), settled, registry)
    weights = config.weights(progress)
    return open_engine(config, weights, replace(engine_options or EngineOptions(), **own))


def _settled(options: LoadOptions | None, overrides: dict[str, Any], registry: Registry | None,
             progress: Progress) -> tuple[LoadOptions, Registry]:
    check_call(progress=progress)
    if not isinstance(registry, Registry | None):
        raise OptionError(f"registry is {shown(registry)}, expected a Registry, such as "
                          "core.installed.registry.default_registry() returns")
    settled = LoadOptions.of(options, overrides)
    return settled, registry if registry is not None else settled.registry()


def settle_checkpoint(checkpoint: Checkpoint, options: LoadOptions, registry: Registry,
                      ) -> EngineConfig:
    """Settle how a checkpoint is computed. Raises as `load`."""
    policy = KernelPolicy.of(registry, options.backend)
    return restrict(settle(checkpoint, options, registry, policy.primary.activation_dtype))


def restrict(config: EngineConfig) -> EngineConfig:
    """Return the configuration with the rules that `lock`, `deterministic` and `batch_invariant`
    make.

    Raises OptionError for an override of a kernel that is not there, or that applies nowhere: a
    wrong layer, or a model without the op. LockError as `Lock.check`.
    """
    policy, options = config.policy, config.options
    for override in policy.overrides:
        override.check(policy.registry)
    rules: list[Rule] = []
    if options.lock is not None:
        lock = Lock.read(Path(options.lock))
        lock.check(policy.registry, list(dict.fromkeys(
            [*policy.backends, *(o.backend for o in policy.overrides)])))
        rules.append(lock)
    if options.deterministic:
        rules.append(DeterminismRule(policy.registry))
    _check_used(config)
    policy = replace(policy, rules=tuple(rules))
    return replace(config, policy=InvariantPolicy.like(policy) if options.batch_invariant
                   else policy)


def _check_used(config: EngineConfig) -> None:
    # sampling's graph is declared for this only where the two that a run begins with have no match
    for override in config.policy.overrides:
        if isinstance(find_op(override.op), FusedOp) and not config.policy.fusion:
            raise OptionError(f"kernel override {override.text!r} names a fused op, and fusion is "
                              "off (--no-fusion)")
        if not any(_applies(override, config.graph(kind))
                   for kind in (DECODE, PROMPT, GraphKind("last", "sample"))):
            raise OptionError(f"kernel override {override.text!r} applies to no node of this "
                              "model; --explain graph lists the nodes")


def _applies(override: Override, graph: Graph) -> bool:
    op = find_op(override.op)
    if isinstance(op, FusedOp):
        return any(override.matches(op.name, max(m.nodes, key=graph.nodes.index).name)
                   for m in find_matches(op, graph))
    return any(override.matches(n.op.name, n.name) for n in graph.nodes)
