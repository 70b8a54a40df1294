"""Reads a .pth file's tensors as NumPy arrays, by PyTorch: an optional extra."""

from __future__ import annotations

import importlib
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from core.errors import CheckpointError, OptionError, missing_packages
from core.tensor.tensor import Array


def load_torch() -> Any:  # noqa: ANN401 - a module
    """Return the package. Raises OptionError with the line that installs it."""
    try:
        return importlib.import_module("torch")
    except ImportError:
        raise missing_packages("reading .pth files", {
            "torch": "pip install 'kernelyard[meta]' (or pip install torch)"},
            OptionError) from None


def read_torch(path: Path) -> dict[str, Array]:
    """Return tensors by name, mapped where the file is a zip, as torch.save has made since 2020.
    Only tensors are unpickled, no other object. Raises CheckpointError for anything else."""
    torch = load_torch()
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True,
                            mmap=zipfile.is_zipfile(path))
    except Exception as error:  # pickle, zip and torch each raise their own
        said = str(error).strip().splitlines()
        raise CheckpointError(f"{path} cannot be read by torch.load: "
                              f"{said[0][:160] if said else type(error).__name__}; it is truncated "
                              "or no file of tensors: fetch it again") from None
    if not isinstance(loaded, dict) or not all(
            isinstance(n, str) and isinstance(t, torch.Tensor) for n, t in loaded.items()):
        raise CheckpointError(f"{path} holds a {type(loaded).__name__}, expected a dict of tensors")
    return {name: _array(path, name, tensor, torch) for name, tensor in loaded.items()}


def _array(path: Path, name: str, tensor: Any, torch: Any) -> Array:  # noqa: ANN401 - torch's
    """Share the tensor's memory; NumPy has no bfloat16, so its bits go over as integers."""
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16) or tensor.ndim > 2:
        raise CheckpointError(f"{path}: tensor {name} is {tensor.dtype} {list(tensor.shape)}, "
                              "expected a matrix or vector of float32, float16 or bfloat16")
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise CheckpointError(f"{path}: tensor {name} is {tensor.layout} on {tensor.device}, "
                              "expected a plain one")
    plain = tensor.detach().contiguous()
    if plain.dtype == torch.bfloat16:
        bits: Array = plain.view(torch.int16).numpy()
        return bits.view(np.dtype(ml_dtypes.bfloat16))
    array: Array = plain.numpy()
    return array
