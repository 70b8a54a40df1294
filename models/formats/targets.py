"""What `models.export --to` can write, and which options each target takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from core.dtype import as_dtype
from core.errors import OptionError
from core.weights import Progress
from models.formats.gguf_writer import load_gguf, write_gguf
from models.formats.hf_writer import write_huggingface
from models.formats.kuiper_writer import write_kuiper
from models.formats.llama2c_writer import write_llama2c
from models.formats.slots import EMBEDDING
from models.formats.source import Source
from models.formats.tokenizer_files import (
    copy_tokenizer_files,
    write_tokenizer_bin,
    write_tokenizer_files,
)
from models.prepare import BITS

TARGETS = ("hf", "llama2c", "kuiper", "gguf")
#: bytes an element, rounded up: with the scales of the smallest groups
_SIZES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "int8": 2.0, "int4": 1.0}


@dataclass(frozen=True)
class Target:
    """`precision`: f32, f16, bf16, int8 or int4; for int8 and int4 `dtype` is that of the rest."""

    name: str
    precision: str
    dtype: str
    version: int

    @property
    def is_folder(self) -> bool:
        return self.name == "hf"

    def write(self, source: Source, folder: Path, name: str, progress: Progress) -> str | None:
        """Weights, as `name`, and tokenizer files into an empty folder. Returns the format's key
        where contents alone do not say it. Raises an InputError for what the format cannot hold."""
        if self.name == "hf":
            copy_tokenizer_files(source.checkpoint, folder)
            write_huggingface(source, folder, self.dtype, BITS.get(self.precision), progress)
            return None
        if self.name == "gguf":
            write_gguf(source, folder / name, self.precision, progress)
            return None
        if self.name == "llama2c":
            write_tokenizer_bin(source.checkpoint, folder)
            write_tokenizer_files(source.checkpoint, folder)
            write_llama2c(source, folder / name, self.version, progress)
            return "kuiper-llama2" if self.version == 0 else "llama2c"
        write_tokenizer_files(source.checkpoint, folder)
        return write_kuiper(source, folder / name, self.precision == "int8", progress).key

    def bytes_needed(self, source: Source) -> int:
        """An upper bound for the disk."""
        elements = sum(math.prod(source.shape(name)) for name in source.names)
        return int(elements * _SIZES[self.precision]) + (32 << 20)


def choose_target(name: str, source: Source, dtype: str | None, quantize: str | None,
                  version: int | None) -> Target:
    """Raises OptionError for options that the target does not take."""
    stored = as_dtype(source.checkpoint.arrays[EMBEDDING].dtype).short
    if name in ("llama2c", "kuiper"):
        if dtype not in (None, "f32"):
            raise OptionError(f"--to {name} writes f32 or --quantize int8, not --dtype {dtype}; "
                              "use --to gguf or --to hf")
        stored = "f32"
    if quantize == "int4" and name != "hf":
        raise OptionError(f"--to {name} holds int8, not int4; use --quantize int8, or --to hf")
    if dtype and quantize and name == "gguf":
        raise OptionError("--to gguf takes --dtype or --quantize, not both")
    if name == "gguf":
        load_gguf()
    wanted = 2 if quantize else 0 if version is None else version
    if version is not None and (name != "llama2c" or (version == 2) != (quantize == "int8")):
        raise OptionError(f"--version {version}: expected 0 or 1 with --to llama2c, or 2 with "
                          "--to llama2c --quantize int8")
    return Target(name, quantize or dtype or stored, dtype or stored, wanted)
