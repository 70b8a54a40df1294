"""Entry point: registers the architectures, file formats and pre-tokenizers of kernelyard, as any
plugin would."""

from collections.abc import Callable
from typing import Any

from core.plugins.hookspecs import hookimpl

KERNELYARD_API = 2


@hookimpl
def register_models(register: Callable[[str, Any], None]) -> None:
    from models.architectures.llama import Llama
    from models.architectures.qwen2 import Qwen2
    register("LlamaForCausalLM", Llama())
    register("Qwen2ForCausalLM", Qwen2())


@hookimpl
def register_checkpoints(register: Callable[[Any], None]) -> None:
    from models.checkpoints.gguf.reader import GgufFile
    from models.checkpoints.huggingface.folder import HuggingFaceFolder
    from models.checkpoints.llama2c.headerless import FAMILIES, HeaderlessFile
    from models.checkpoints.llama2c.reader import Llama2cFile
    from models.checkpoints.meta.folder import MetaFolder
    from models.checkpoints.random_shape import RandomShape
    for reader in (MetaFolder(), HuggingFaceFolder(), GgufFile(), Llama2cFile(),
                   HeaderlessFile(), *map(HeaderlessFile, FAMILIES), RandomShape()):
        register(reader)


@hookimpl
def register_pretokenizers(register: Callable[[str, Any], None]) -> None:
    from models.tokenizers.pretokenizers import BUILT_IN
    for name, how in BUILT_IN.items():
        register(name, how)
