"""Loads the `gguf` package where it is needed: to write files, and to read some block types."""

from __future__ import annotations

import importlib
from typing import Any

from core.errors import InputError, OptionError, missing_packages


def load_gguf(what: str = "writing GGUF", kind: type[InputError] = OptionError) -> Any:  # noqa: ANN401 - a module
    """Return the package. Raises an error of `kind` with the line that installs it."""
    try:
        return importlib.import_module("gguf")
    except ImportError:
        raise missing_packages(what, {
            "gguf": "pip install 'kernelyard[gguf]' (or pip install gguf)"}, kind) from None
