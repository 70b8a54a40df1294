"""LoadOptions: state once each option that a user has while a model is loaded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import OptionError
from core.installed.choice import PluginChoice
from core.installed.registry import Registry, default_registry, split_backends
from core.plugins.backend import BackendOptions
from core.reading import shown
from models.checkpoints.quantization import SCHEMES

DTYPES = ("f32", "f16", "bf16")
SEQUENCES = 65_535  # more would take a table of gigabytes in host memory
KV_DTYPES = (*DTYPES, "i8")


def option(default: Any, help_text: str, flag: str = "", **argument: Any) -> Any:  # noqa: ANN401
    """Declare a field and how the command line shows it.

    flag      where it is not `--` and the field's name, such as `--no-fusion`
    argument  what argparse's add_argument takes: choices, metavar, type, action
    """
    return field(default=default, metadata={"help": help_text, "flag": flag, **argument})


_EXPECTED = {str: "a text", int: "an integer of 64 bits", bool: "True or False", Path: "a path",
             list: "a text or a list of texts"}
_KINDS: dict[str, type] = {
    **dict.fromkeys(("dtype", "quantize", "kv_dtype"), str), "lock": Path,
    **dict.fromkeys(("group_size", "max_context", "chunk", "device", "threads"), int),
    **dict.fromkeys(("fusion", "deterministic", "batch_invariant", "mmap", "allow_tf32"), bool),
    **dict.fromkeys(("backend", "keep", "quantize_only", "kernels", "only_plugins",
                     "without_plugins"), list)}


def _fits(value: object, kind: type) -> bool:
    if kind is list:
        return isinstance(value, str) or (isinstance(value, (list, tuple))
                                          and all(isinstance(v, str) for v in value))
    if kind in (int, bool):  # a bool is an int too
        return type(value) is kind and -2**63 <= value < 2**63
    return isinstance(value, (str, kind))


@dataclass(frozen=True)
class LoadOptions:
    """Hold everything that decides how a model is computed. Help texts say what each field does."""

    backend: str | Sequence[str] = option(
        "cpu_numpy", "where the kernels come from; one is strict, several fall back in that order",
        metavar="NAME[,NAME]")
    dtype: str | None = option(
        None, "dtype of the activations (default: the backend's choice). Weights keep their stored "
        "dtype unless it is wider than this one, or another 16-bit type", choices=DTYPES)
    quantize: str | None = option(
        None, "quantise projections and output head while loading; int4 has a zero for each group",
        choices=tuple(SCHEMES))
    group_size: int | None = option(
        None, "weights that share a scale (default: int8 64, int4 128)", type=int, metavar="N")
    keep: str | Sequence[str] = option(
        (), "keep matching weights in full precision, such as lm_head.weight or "
        "'model.layers.0.*'; may repeat", action="append", metavar="PATTERN")
    quantize_only: str | Sequence[str] = option(
        (), "quantise matching weights only; may repeat", action="append", metavar="PATTERN")
    kv_dtype: str | None = option(
        None, "dtype of the KV cache (default: the activations')", choices=KV_DTYPES)
    max_context: int | None = option(
        None, "tokens that the KV cache holds (default: the model's limit, at most 4096)",
        type=int, metavar="N")
    chunk: int | None = option(
        None, "the most tokens of a prompt that are computed at once (default: as many as pay on "
        "the backend, fewer where memory is short)", type=int, metavar="N")
    kernels: Sequence[str] = option(
        (), "choose a kernel, such as attention=cpu_numpy; may repeat", "--kernel",
        action="append", metavar="[NODES:]OP=BACKEND[:KERNEL]")
    fusion: bool = option(True, "use no fused kernels", "--no-fusion", action="store_false")
    deterministic: bool = option(
        False, "only kernels that declare, and show on their op's examples, equal bits from run to "
        "run", action="store_true")
    batch_invariant: bool = option(
        False, "only kernels that give a token the same bits whatever it is computed beside: see "
        "docs/batch-invariance.md", action="store_true")
    lock: str | Path | None = option(  # noqa: RUF009 - it makes a field
        None, "only the kernels of a lock file, unchanged", metavar="FILE")
    mmap: bool = option(
        True, "on a CPU, copy the weights into memory instead of mapping the file: faster "
        "decoding, slower start", "--no-mmap", action="store_false")
    device: int | None = option(None, "which GPU, counted from 0", type=int, metavar="N")
    threads: int | None = option(None, "CPU threads (default: all cores; `serve` may leave "
                               "one to HTTP)", type=int, metavar="N")
    allow_tf32: bool | None = option(None, "f32 products on a GPU may round their inputs to TF32",
                                     action="store_true")
    only_plugins: str | Sequence[str] | None = option(
        None, "load these plugins and no other", metavar="NAME[,NAME]")
    without_plugins: str | Sequence[str] = option(
        (), "do not load this plugin; may repeat", "--without-plugin", action="append",
        metavar="NAME")

    def __post_init__(self) -> None:
        """Raises OptionError for a value of another type; an integer may be NumPy's."""
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if isinstance(value, np.integer) and kind is int:
                object.__setattr__(self, name, int(value))
            elif not (_fits(value, kind)
                      or (value is None and getattr(type(self), name) is None)):
                raise OptionError(f"{name} is {shown(value)}, expected {_EXPECTED[kind]}")

    @classmethod
    def of(cls, options: LoadOptions | None, overrides: dict[str, Any]) -> LoadOptions:
        """Return `options`, or the defaults, with some fields replaced.

        Raises OptionError for a name that is no option.
        """
        if options is not None and not isinstance(options, LoadOptions):
            raise OptionError(f"options is {shown(options)}, expected LoadOptions; a backend is "
                              "named with backend=")
        base = options if options is not None else cls()
        known = {f.name: getattr(base, f.name) for f in fields(base)}
        unknown = sorted(set(overrides) - set(known))
        if unknown:
            raise OptionError(f"unknown load option {', '.join(unknown)}; expected "
                              f"{', '.join(known)}")
        return type(base)(**{**known, **overrides})

    @property
    def mode(self) -> str:
        """Name what was asked for that changes the bits of results and is no kernel."""
        patterns = repr((self.keep, self.quantize_only)).encode()
        some = bool(self.keep or self.quantize_only)
        named = [self.dtype, self.quantize, self.group_size and f"group_{self.group_size}",
                 some and hashlib.sha256(patterns).hexdigest()[:8],
                 self.kv_dtype and f"kv_{self.kv_dtype}", self.allow_tf32 and "tf32",
                 self.deterministic and "deterministic", self.batch_invariant and "batch-invariant"]
        return "-".join(part for part in named if part) or "default"

    @property
    def backend_options(self) -> BackendOptions:
        """Return the options that backends take as they open. Raises OptionError for a bad
        value."""
        return BackendOptions(self.device, self.threads, self.allow_tf32)

    @property
    def plugin_choice(self) -> PluginChoice:
        """Return the plugins to load. Raises OptionError for a choice that contradicts itself."""
        return PluginChoice.of(self.only_plugins, self.without_plugins)

    def registry(self, *others: str | None, spare: int | None = None) -> Registry:
        """Return the chosen plugins, their backends opened with `backend_options`.

        others  more texts that name backends, such as "a,b" or "attention=c"
        spare   see BackendOptions; one of the named backends takes it
        Raises OptionError for an option that no named backend takes, or an unknown plugin.
        """
        registry = default_registry(replace(self.backend_options, spare=spare),
                                    self.plugin_choice)
        texts = [*split_backends(self.backend), *self.kernels, *filter(None, others)]
        words = {word for text in texts for word in re.split("[,+:=]", text)}
        named = [name for name in registry.specs if name in words]
        if named:  # an unknown name is reported where it is used
            registry.check_options(named)
        return registry


@dataclass(frozen=True)
class EngineOptions:
    """Hold what an engine for many sequences needs beside LoadOptions. Names are vLLM's."""

    max_num_seqs: int = option(256, "the most sequences computed at once (default: 256)", type=int,
                               metavar="N")
    max_num_batched_tokens: int | None = option(
        None, "the most tokens of a step (default: 512 on a CPU, 2048 on a GPU, no less than "
        "--max-num-seqs)", type=int, metavar="N")
    enable_prefix_caching: bool = option(
        True, "compute every prompt from its beginning", "--no-prefix-caching",
        action="store_false")
    gpu_memory_utilization: float | None = option(
        None, "the share of the free memory that the KV cache may take (default: 0.9; on a CPU "
        "0.5)", type=float, metavar="X")
    kv_blocks: int | None = option(
        None, "blocks of 16 tokens in the KV cache (default: what the memory allows, at most what "
        "all sequences can use)", type=int, metavar="N")
    max_queue: int = option(4096, "requests that may wait; more are refused (default: 4096)",
                            type=int, metavar="N")

    def __post_init__(self) -> None:
        """Raises OptionError for a number that no engine can use."""
        for name in ("max_num_seqs", "max_num_batched_tokens", "kv_blocks", "max_queue"):
            value = getattr(self, name)
            if not (value is None and getattr(type(self), name) is None) and (
                    not isinstance(value, (int, np.integer)) or isinstance(value, bool)
                    or value < 1):
                raise OptionError(f"{name} is {shown(value)}, expected a whole number, at least 1")
            most = SEQUENCES if name == "max_num_seqs" else 2**63 - 1
            if value is not None and value > most:
                raise OptionError(f"{name} is {shown(value)}, expected at most {most}")
        share = self.gpu_memory_utilization
        if share is not None and (isinstance(share, bool) or not isinstance(share, (int, float))
                                  or not 0 < share <= 1):
            raise OptionError(f"gpu_memory_utilization is {shown(share)}, expected a number above "
                              "0, at most 1")
        if type(self.enable_prefix_caching) is not bool:
            raise OptionError(f"enable_prefix_caching is {shown(self.enable_prefix_caching)}, "
                              "expected True or False")
