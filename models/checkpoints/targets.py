"""Lists what `models.export --to` can write, and which options each target takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from core.errors import OptionError
from core.plan.weights import Progress
from core.tensor.dtype import as_dtype
from models.architectures.tensors import EMBEDDING
from models.checkpoints.gguf.package import load_gguf
from models.checkpoints.gguf.writer import gguf_matrices, write_gguf
from models.checkpoints.huggingface.tokenizer_files import (
    copy_tokenizer_files,
    write_tokenizer_bin,
    write_tokenizer_files,
)
from models.checkpoints.huggingface.writer import huggingface_matrices, write_huggingface
from models.checkpoints.llama2c.kuiper_writer import kuiper_family, write_kuiper
from models.checkpoints.llama2c.writer import write_llama2c
from models.checkpoints.quantization import Quantization
from models.checkpoints.source import Source

TARGETS = ("hf", "llama2c", "kuiper", "gguf")
_SIZES = {"f32": 4, "f16": 2, "bf16": 2}
_INT8 = 2.0  # bytes an element of the formats with groups of their own, at most: groups of 4


@dataclass(frozen=True)
class Target:
    """`dtype` is that of everything, or of what `quantization` leaves in full precision."""

    name: str
    dtype: str
    quantization: Quantization | None
    version: int

    @property
    def precision(self) -> str:
        """Return f32, f16, bf16, int8 or int4."""
        return self.quantization.precision if self.quantization else self.dtype

    @property
    def is_folder(self) -> bool:
        return self.name == "hf"

    def write(self, source: Source, folder: Path, name: str, progress: Progress) -> str | None:
        """Write weights, as `name`, and tokenizer files into an empty folder. Returns the format's
        key where contents alone do not say it. Raises an InputError for what the format cannot
        hold."""
        if self.name == "hf":
            copy_tokenizer_files(source.checkpoint, folder)
            write_huggingface(source, folder, self.dtype, self.quantization, progress)
            return None
        if self.name == "gguf":
            write_gguf(source, folder / name, self.precision, progress, self.quantization)
            return None
        if self.name == "llama2c":
            write_tokenizer_files(source.checkpoint, folder)
            write_tokenizer_bin(source.checkpoint, folder)
            write_llama2c(source, folder / name, self.version, progress)
            return "kuiper-llama2" if self.version == 0 else "llama2c"
        write_tokenizer_files(source.checkpoint, folder)
        return write_kuiper(source, folder / name, self.precision == "int8", progress).key

    def named(self, path: Path, source: Source) -> str:
        """Return what reads the written model, with the format's key where contents do not say
        it."""
        if self.name == "kuiper":
            return f"{kuiper_family(source).key}:{path}"
        return f"kuiper-llama2:{path}" if self.name == "llama2c" and not self.version else str(path)

    def bytes_needed(self, source: Source) -> int:
        """Return an upper bound for the disk. Raises OptionError for a pattern that matches
        nothing."""
        quantization, rest = self.quantization, 32 << 20  # tokenizer and header
        if self.name in ("llama2c", "kuiper"):
            rest += source.config.max_positions * source.config.head_dim * 4  # cos and sin
        counts = {name: math.prod(source.shape(name)) for name in source.names}
        if quantization is None:
            return sum(counts.values()) * _SIZES[self.dtype] + rest
        if self.name in ("llama2c", "kuiper"):  # a tied head may be written once more, as int8
            return int(sum(counts.values()) * _INT8) + 4 * counts[EMBEDDING] + rest
        choose = huggingface_matrices if self.name == "hf" else gguf_matrices
        chosen = choose(source, quantization)
        plain = sum(count for name, count in counts.items() if name not in chosen)
        bytes_of = [_quantized_bytes(source.shape(name), quantization) for name in chosen]
        return plain * _SIZES["f32"] + sum(bytes_of) + rest


def _quantized_bytes(shape: tuple[int, ...], quantization: Quantization) -> int:
    q = quantization.probe(shape[1])
    parts = [a.nbytes for a in (q.codes, q.scales, q.zeros) if a is not None]
    return shape[0] * max(sum(parts), 2 * shape[1] if q.bits == 8 else 0)  # GGUF may store F16


def choose_target(name: str, source: Source, dtype: str | None, quantization: Quantization | None,
                  version: int | None) -> Target:
    """Raises OptionError for options that the target does not take, CheckpointError for a file
    that does not hold the model that its configuration describes."""
    source.check()
    stored = as_dtype(source.dtype(EMBEDDING)).short
    if name in ("llama2c", "kuiper"):
        if dtype not in (None, "f32"):
            raise OptionError(f"--to {name} writes f32 or --quantize int8, not --dtype {dtype}; "
                              "use --to gguf or --to hf")
        stored = "f32"
    if quantization:
        _check_quantization(name, quantization)
    if dtype and quantization and name == "gguf":
        raise OptionError("--to gguf takes --dtype or --quantize, not both")
    if name == "gguf":
        load_gguf()
    wanted = 2 if quantization else 0 if version is None else version
    if version is not None and (name != "llama2c" or (version == 2) != bool(quantization)):
        raise OptionError(f"--version {version}: expected 0 or 1 with --to llama2c, or 2 with "
                          "--to llama2c --quantize int8")
    return Target(name, dtype or stored, quantization, wanted)


def _check_quantization(name: str, q: Quantization) -> None:
    """Only our own folders are free in how they quantise."""
    if name != "hf" and q.bits != 8:
        raise OptionError(f"--to {name} holds int8, not int4; use --quantize int8, or --to hf")
    if name != "hf" and q.group_size is not None:
        raise OptionError(f"--to {name} fixes its groups; leave --group-size out, or use --to hf")
    if name in ("llama2c", "kuiper") and (q.keep or q.only):
        raise OptionError(f"--to {name} fixes which tensors are int8; leave --keep and "
                          "--quantize-only out, or use --to hf or gguf")
