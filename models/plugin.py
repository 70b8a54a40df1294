"""Entry point: the architectures and file formats that ship with kernelyard, as any plugin's."""

from collections.abc import Callable
from typing import Any

from core.hookspecs import hookimpl

KERNELYARD_API = 1


@hookimpl
def register_models(register: Callable[[str, Any], None]) -> None:
    from models.llama import Llama
    from models.qwen2 import Qwen2
    register("LlamaForCausalLM", Llama())
    register("Qwen2ForCausalLM", Qwen2())


@hookimpl
def register_checkpoints(register: Callable[[Any], None]) -> None:
    from models.formats.gguf import GgufFile
    from models.formats.headerless import FAMILIES, HeaderlessFile
    from models.formats.llama2c import Llama2cFile
    from models.formats.meta import MetaFolder
    from models.formats.random_shape import RandomShape
    from models.huggingface import HuggingFaceFolder
    for reader in (MetaFolder(), HuggingFaceFolder(), GgufFile(), Llama2cFile(),
                   HeaderlessFile(), *map(HeaderlessFile, FAMILIES), RandomShape()):
        register(reader)
