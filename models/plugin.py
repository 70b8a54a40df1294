"""Entry point: the architectures and file formats that ship with kernelyard, as any plugin's."""

from core.hookspecs import hookimpl

KERNELYARD_API = 1


@hookimpl
def register_models(register):  # type: ignore[no-untyped-def]
    from models.llama import Llama
    from models.qwen2 import Qwen2
    register("LlamaForCausalLM", Llama())
    register("Qwen2ForCausalLM", Qwen2())


@hookimpl
def register_checkpoints(register):  # type: ignore[no-untyped-def]
    from models.huggingface import HuggingFaceFolder
    register(HuggingFaceFolder())
