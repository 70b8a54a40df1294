"""Declare the whole plugin contract. A plugin is a module named by an entry point of the group
`kernelyard.plugins`; it sets `KERNELYARD_API = 2` and implements any of these hooks.

Each hook is called with a `register` function, once: never while tokens are being computed.
"""

from collections.abc import Callable
from typing import Any

import pluggy

from core.ir.op import Op
from core.plugins.backend import BackendSpec
from core.plugins.kernel import Kernel

hookspec = pluggy.HookspecMarker("kernelyard")
hookimpl = pluggy.HookimplMarker("kernelyard")


@hookspec
def register_backends(register: Callable[[BackendSpec], None]) -> None:
    """Name backends. Import no device library: `BackendSpec.target` is imported on first use."""


@hookspec
def register_kernels(backend: str, register: Callable[[Kernel], None]) -> None:
    """Register kernels for `backend`; called when that backend is first used."""


@hookspec
def register_ops(register: Callable[[Op], None]) -> None:
    """Add ops, fused ones among them, to the vocabulary."""


@hookspec
def register_models(register: Callable[[str, Any], None]) -> None:
    """Map an architecture name of config.json to a `models.Architecture`."""


@hookspec
def register_checkpoints(register: Callable[[Any], None]) -> None:
    """Add a reader for one more file format: a `models.CheckpointFormat`."""


@hookspec
def register_rope_types(register: Callable[[str, Any], None]) -> None:
    """Map a rope type of config.json to a `models.RopeType`."""


@hookspec
def register_pretokenizers(register: Callable[[str, Any], None]) -> None:
    """Map a name of GGUF's `tokenizer.ggml.pre` to the JSON of a pre-tokenizer of `tokenizers`, or
    to a `models.PreTokenizer`, which says more."""
