"""kernelyard models: builds graphs, reads checkpoints, tokenizes and generates.

    with models.load("stories-llama2", backend="cpu_numpy") as model:
        for piece in model.generate("Once upon a time", max_new_tokens=60):
            print(piece, end="")

The names below `Model` are for plugins that bring a family or a file format.
"""

# ruff: noqa: E402 - a shadowed `core` is named before anything is imported from it
import sys
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
from models.serving.engine import Engine
from models.serving.grammar.params import StructuredOutputsParams
from models.serving.params import SamplingParams
from models.tokenizers.pretokenizers import PreTokenizer

if TYPE_CHECKING:
    from models.serving.async_engine import AsyncEngine

__all__ = [
    "Architecture", "AsyncEngine", "Builder", "Checkpoint", "CheckpointFormat", "ConfigReader",
    "Engine", "Llama", "LoadOptions", "Model", "ModelConfig", "PreTokenizer", "RopeConfig",
    "RopeType", "Rows", "SamplingParams", "Stack", "StructuredOutputsParams", "WeightSpec", "load",
    "load_engine",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class
    """Return AsyncEngine, which brings asyncio and multiprocessing: most programs need neither."""
    if name == "AsyncEngine":
        from models.serving.async_engine import AsyncEngine
        return AsyncEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
