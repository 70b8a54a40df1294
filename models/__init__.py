"""kernelyard models: builds graphs, reads checkpoints, tokenizes and generates.

    with models.load("stories-llama2", backend="cpu_numpy") as model:
        for piece in model.generate("Once upon a time", max_new_tokens=60):
            print(piece, end="")

The names below `Model` are for plugins that bring a family or a file format.
"""


import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

try:
    from kernelyard._own import check_own
except ImportError:  # another `kernelyard` comes first: what it cannot say stands here
    from importlib.util import find_spec

    _spec = find_spec("kernelyard")
    _message = (f"kernelyard's package 'kernelyard' is shadowed by {_spec and _spec.origin}; run "
                "from another folder, or rename that one: Python finds it first")
    if sys.argv[:1] == ["-m"]:  # while `python -m models.run` is imported
        print(f"error: {_message}", file=sys.stderr)
        sys.exit(2)
    raise ImportError(_message, name="kernelyard") from None

check_own("core")

#: public name -> its module, imported when the name is first used: a program that brings a family
#: of models needs no server, and one that generates text no file format but its own
_HOMES = {
    "Architecture": "architectures.base", "AsyncEngine": "serving.async_engine",
    "Builder": "architectures.layers", "Checkpoint": "checkpoints.base",
    "CheckpointFormat": "checkpoints.base", "ConfigReader": "json_reader",
    "Engine": "serving.engine", "Llama": "architectures.llama", "LoadOptions": "engine.options",
    "Model": "engine.model", "ModelConfig": "architectures.config",
    "PreTokenizer": "tokenizers.pretokenizers", "RopeConfig": "architectures.rope",
    "RopeType": "architectures.rope", "Rows": "architectures.tensors",
    "SamplingParams": "serving.params", "Stack": "architectures.tensors",
    "StructuredOutputsParams": "serving.grammar.params", "WeightSpec": "architectures.tensors",
    "load": "engine.load", "load_engine": "engine.load",
}

if TYPE_CHECKING:
    from models.architectures.base import Architecture
    from models.architectures.config import ModelConfig
    from models.architectures.layers import Builder
    from models.architectures.llama import Llama
    from models.architectures.rope import RopeConfig, RopeType
    from models.architectures.tensors import Rows, Stack, WeightSpec
    from models.checkpoints.base import Checkpoint, CheckpointFormat
    from models.engine.load import load, load_engine
    from models.engine.model import Model
    from models.engine.options import LoadOptions
    from models.json_reader import ConfigReader
    from models.serving.async_engine import AsyncEngine
    from models.serving.engine import Engine
    from models.serving.grammar.params import StructuredOutputsParams
    from models.serving.params import SamplingParams
    from models.tokenizers.pretokenizers import PreTokenizer

__all__ = [
    "Architecture", "AsyncEngine", "Builder", "Checkpoint", "CheckpointFormat", "ConfigReader",
    "Engine", "Llama", "LoadOptions", "Model", "ModelConfig", "PreTokenizer", "RopeConfig",
    "RopeType", "Rows", "SamplingParams", "Stack", "StructuredOutputsParams", "WeightSpec", "load",
    "load_engine",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class or a function
    """Return a public name, and keep it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"models.{_HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
