"""Reads files that begin with seven bare integers: llama2.c v0, and all of KuiperLLama's.

Nothing in them names the format, so it follows from what does differ:
- the size. float32 without biases (llama2.c v0, KuiperLLama's Llama files), float32 with biases of
  q, k and v (KuiperLLama's Qwen2) and int8 with an eighth integer, the group size, have different
  sizes for the same header; exactly one must equal the file's.
- the tokenizer beside the file. Llama-2 and Llama-3.2 files are alike byte for byte but mean
  different models: pairs and theta 10000, or halves and theta 500000. The first come with a
  SentencePiece tokenizer, the second with tokenizer.json. With both, or neither, the caller must
  name the format: `kuiper-llama3:model.bin`.
KuiperLLama computes no rope scaling and fixes eps (1e-5; Qwen2 1e-6); so do we for its files.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.errors import CheckpointError
from models.architectures.base import Architecture
from models.checkpoints.base import Checkpoint, read_start
from models.checkpoints.generation import stop_origins
from models.checkpoints.llama2c.layout import (
    Dimensions,
    Slot,
    check_group,
    kuiper_int8_layout,
    total_bytes,
    v0_layout,
)
from models.checkpoints.llama2c.layout_reader import read_layout
from models.checkpoints.llama2c.reader import EPS, THETA, config_of
from models.tokenizers.beside import load_beside

SEVEN, EIGHT = struct.Struct("<7i"), struct.Struct("<8i")
SENTENCEPIECE = ("tokenizer.model", "tokenizer.bin")
JSON = ("tokenizer.json",)


@dataclass(frozen=True)
class Family:
    """Holds what a family's files leave out: architecture, theta, eps, row order, tokenizer
    files."""

    key: str
    architecture: str
    theta: float
    eps: float
    pairs: bool
    tokenizers: tuple[str, ...]


LLAMA2 = Family("kuiper-llama2", "LlamaForCausalLM", THETA, EPS, True, SENTENCEPIECE)
LLAMA3 = Family("kuiper-llama3", "LlamaForCausalLM", 500000.0, EPS, False, JSON)
QWEN2 = Family("kuiper-qwen2", "Qwen2ForCausalLM", 1000000.0, 1e-6, False, JSON)
FAMILIES = (LLAMA2, LLAMA3, QWEN2)


class HeaderlessFile:
    """Reads llama2.c v0 or KuiperLLama; `family` fixes which model the numbers are of."""

    def __init__(self, family: Family | None = None) -> None:
        self.family = family
        self.key = family.key if family else "kuiper"
        self.name = f"{family.key}:PATH" if family else "llama2.c v0 or KuiperLLama file"

    def recognises(self, path: Path) -> bool:
        """Return whether the first integers can be sizes of a model; a named family is never
        guessed."""
        if self.family is not None or not path.is_file():
            return False
        start = read_start(path, SEVEN.size)
        return (len(start) == SEVEN.size
                and Dimensions.parse(SEVEN.unpack(start)).problem() is None)

    def read(self, path: Path, families: Mapping[str, Architecture]) -> Checkpoint:
        """Raises CheckpointError, TokenizerError."""
        start = read_start(path, EIGHT.size)
        if len(start) < EIGHT.size:
            raise CheckpointError(f"{path} has {len(start)} bytes, expected a header of 28; it is "
                                  "truncated: fetch it again")
        *numbers, group = EIGHT.unpack(start)
        d = Dimensions.parse(numbers)
        if problem := d.problem():
            raise CheckpointError(f"{path}: {problem}; the header is damaged, or this is no "
                                  "llama2.c v0 or KuiperLLama file")
        layout = _layout(path, d, group)
        if layout == "int8":
            weights = read_layout(path, EIGHT.size, kuiper_int8_layout(d), group)
        else:
            weights = read_layout(path, SEVEN.size, v0_layout(d, layout == "biases"))
        family = self.family or _family(path, layout)
        if (family is QWEN2) != (layout == "biases"):
            raise CheckpointError(f"{path} holds {'' if layout == 'biases' else 'no '}biases of "
                                  f"q, k and v, so it is no {family.key} file; leave the prefix "
                                  "out, or name another")
        tokenizer = load_beside(path, family.tokenizers)
        # llama2.c and KuiperLLama differ here: the first also ends at BOS
        stops = stop_origins(("EOS of the tokenizer", [tokenizer.eos_id]), (
            "BOS, as run.c ends there", [tokenizer.bos_id] if family is LLAMA2 else []))
        return Checkpoint(path, config_of(d, str(path), family.architecture, family.theta,
                                          family.eps), weights.arrays, tokenizer,
                          tuple(stops), weights.quantized, family.pairs, weights.notes,
                          stops_from=stops)


def _layout(path: Path, d: Dimensions, group: int) -> str:
    """Choose plain, biases or int8: the one whose size is the file's. Raises CheckpointError."""
    size = path.stat().st_size  # read_start has opened it
    sizes = {"plain": SEVEN.size + total_bytes(v0_layout(d)),
             "biases": SEVEN.size + total_bytes(v0_layout(d, True))}
    if _groups_fit(kuiper_int8_layout(d), group):
        sizes["int8"] = EIGHT.size + total_bytes(kuiper_int8_layout(d), group)
    fitting = [name for name, needed in sizes.items() if needed == size]
    if len(fitting) != 1:
        raise CheckpointError(
            f"{path} has {size} bytes; the sizes in its first integers describe "
            f"{sizes['plain']} (llama2.c v0 or KuiperLLama float32), {sizes['biases']} "
            f"(KuiperLLama Qwen2) or {sizes.get('int8', 'no')} (KuiperLLama int8); it is "
            "truncated, damaged or in no known format: fetch it again")
    return fitting[0]


def _groups_fit(layout: list[Slot], group: int) -> bool:
    try:
        check_group(layout, group, "")
    except CheckpointError:
        return False
    return True


def _family(path: Path, layout: str) -> Family:
    if layout == "biases":
        return QWEN2
    present = [f for f in (LLAMA2, LLAMA3) if any((path.parent / n).exists() for n in f.tokenizers)]
    if len(present) != 1:
        raise CheckpointError(
            f"{path}: Llama-2 and Llama-3 files of this layout are alike; the tokenizer beside "
            f"them tells them apart, and {path.parent} has {'both' if present else 'neither'} "
            f"tokenizer.model (or .bin) and tokenizer.json; leave one of them there, or "
            f"name the format: {LLAMA2.key}:{path} or {LLAMA3.key}:{path}")
    return present[0]
