"""Writes KuiperLLama's files, for the family that it was compiled for: Llama-2, Llama-3, Qwen2."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

from core.errors import ConfigError
from core.plan.weights import Progress
from models.checkpoints.llama2c.headerless import FAMILIES, LLAMA2, LLAMA3, QWEN2, Family
from models.checkpoints.llama2c.layout import kuiper_int8_layout, v0_layout
from models.checkpoints.llama2c.layout_writer import row_group, write_layout
from models.checkpoints.llama2c.writer import seven
from models.checkpoints.source import Source


def write_kuiper(source: Source, path: Path, int8: bool, progress: Progress) -> Family:
    """float32 or int8; returns the family that reads it. Raises ConfigError for a model that
    KuiperLLama would compute differently."""
    family = kuiper_family(source)
    source.require(f"KuiperLLama ({family.key})", family.theta, family.eps)
    has_biases, holds = source.config.biases, frozenset(("q_proj", "k_proj", "v_proj"))
    if has_biases != (holds if family is QWEN2 else frozenset()):
        raise ConfigError(f"KuiperLLama's {family.key} has biases in "
                          f"{'q, k and v' if family is QWEN2 else 'no projection'}, the model in "
                          f"{', '.join(sorted(has_biases)) or 'none'}; export to hf or gguf instead"
                          )
    if int8 and has_biases:
        raise ConfigError("KuiperLLama's int8 files hold no biases, which Qwen2 needs; export "
                          "without --quantize, or to gguf")
    d = source.dimensions()
    if not int8:
        write_layout(path, seven(d, d.tied), v0_layout(d, family is QWEN2), source,
                    pairs=family.pairs, progress=progress)
        return family
    # always with a head of its own: for a tied one KuiperLLama reads float32 bytes as int8
    layout = kuiper_int8_layout(replace(d, tied=False))
    group = row_group(layout)
    write_layout(path, seven(d, False) + struct.pack("<i", group), layout, source,
                pairs=family.pairs, group=group, progress=progress)
    return family


def kuiper_family(source: Source) -> Family:
    """Choose the family by architecture and theta. Raises ConfigError."""
    c = source.config
    candidates = [f for f in FAMILIES if f.architecture == c.architecture]
    for family in candidates:
        if family.theta == c.rope.theta:
            return family
    raise ConfigError(f"KuiperLLama runs Llama with theta {LLAMA2.theta:g} or {LLAMA3.theta:g} and "
                      f"Qwen2 with {QWEN2.theta:g}; the model is {c.architecture} with "
                      f"{c.rope.theta:g}: export to hf or gguf instead")
