"""Reads tensors of a PyTorch file (.pth, pytorch_model.bin) by PyTorch, an optional extra."""

from __future__ import annotations

import importlib
import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from core.errors import CheckpointError, OptionError
from core.reading import MIB, open_regular, shown
from core.tensor.tensor import Array

_PICKLE = 16 * MIB  # bytes: names and shapes; a model of 126 layers needs 150 KB
#: how the package names what a pickle asks for beside tensors
_GLOBAL = re.compile(r"nsupported (?:global: )?(?:GLOBAL|class) ([\w.]+)")
_FLOATS = ("float32", "float16", "bfloat16")
_OTHERS = ("bool", "uint8", "int8", "int16", "int32", "int64", "float64")  # buffers


def load_torch() -> Any:  # noqa: ANN401 - a module
    """Return the package. Raises OptionError with the line that installs it."""
    try:
        return importlib.import_module("torch")
    except ImportError:
        raise OptionError("reading .pth and .bin files needs PyTorch: pip install "
                          "'kernelyard[meta]' (or pip install torch)") from None


def read_torch(path: Path, *, buffers: bool = False) -> dict[str, Array]:
    """Return tensors by name, mapped where the file is a zip, as torch.save has made since 2020.
    Only tensors are unpickled, no other object; with `buffers` also those that are no weights.
    Raises CheckpointError for anything else."""
    torch, zipped = load_torch(), _check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the package, about its own future
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # pickle, zip and torch each raise their own
        raise CheckpointError(f"{path} cannot be read by torch.load: {_why(error)}") from None
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path} holds a {type(loaded).__name__}, expected a dict of "
                              "tensors; save model.state_dict() alone")
    for name, value in loaded.items():
        if not (isinstance(name, str) and isinstance(value, torch.Tensor)):
            raise CheckpointError(f"{path} holds {shown(name)}, which is a {type(value).__name__}, "
                                  "expected tensors by name; save model.state_dict() alone")
    kinds = _FLOATS + _OTHERS if buffers else _FLOATS
    return {name: _array(path, name, tensor, torch, kinds) for name, tensor in loaded.items()}


def _why(error: Exception) -> str:
    """Say what a failure means, and what to do: the package advises to run what the file holds."""
    foreign = _GLOBAL.search(str(error))
    if foreign:
        return (f"it holds {foreign[1]}, which is no tensor and was not run; take the model in "
                "safetensors, or a file of model.state_dict() alone")
    said = str(error).strip().splitlines() or [type(error).__name__]
    first = "its pickle is not one of tensors" if "weights_only" in said[0] else said[0][:160]
    return f"{first}; it is truncated or no file of tensors: fetch it again"


def _check_file(path: Path) -> bool:
    """Say whether the file is a zip. Raises CheckpointError for one that PyTorch did not write: it
    maps members as they lie, so that compressed ones would be read as weights."""
    try:
        with open_regular(path) as file:
            if not zipfile.is_zipfile(file):
                return False
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        said = error.strerror if isinstance(error, OSError) else f"{error}; fetch it again"
        raise CheckpointError(f"cannot read {path}: {said}") from None
    for member in members:
        packed = member.compress_type != zipfile.ZIP_STORED
        if packed or member.file_size != member.compress_size:
            raise CheckpointError(f"{path}: member {member.filename!r} is compressed, which "
                                  "PyTorch's files are not; unpack the archive and zip it again "
                                  "without compression (zip -0), or fetch it again")
        if member.filename.endswith("data.pkl") and member.file_size > _PICKLE:
            raise CheckpointError(f"{path}: {member.filename} has {member.file_size} bytes, "
                                  f"expected at most {_PICKLE}; it is no file of tensors")
    if len({m.filename for m in members}) < len(members):
        raise CheckpointError(f"{path}: a member of the archive is there twice; it is damaged: "
                              "fetch it again")
    return True


def _array(path: Path, name: str, tensor: Any, torch: Any,  # noqa: ANN401 - torch's
           kinds: Sequence[str]) -> Array:
    """Share the tensor's memory; NumPy has no bfloat16, so its bits go over as integers."""
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind.startswith("float8"):
        raise CheckpointError(f"{path}: tensor {name} is {kind}, which cannot be read; take the "
                              "model in bf16, and pass --quantize int8 for its size")
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise CheckpointError(f"{path}: tensor {name} is {tensor.layout} on {tensor.device}, "
                              "expected a plain one")
    if kind not in kinds or (kind in _FLOATS and tensor.ndim not in (1, 2)):
        raise CheckpointError(f"{path}: tensor {name} is {tensor.dtype} {list(tensor.shape)}, "
                              "expected a matrix or vector of float32, float16 or bfloat16")
    # a stride of zero lets a few bytes stand for any number of elements
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(f"{path}: tensor {name} {list(tensor.shape)} has more elements than "
                              "the file holds for it; it is damaged: fetch it again")
    plain = tensor.detach().contiguous()
    if plain.dtype == torch.bfloat16:
        bits: Array = plain.view(torch.int16).numpy()
        return bits.view(np.dtype(ml_dtypes.bfloat16))
    array: Array = plain.numpy()
    return array
