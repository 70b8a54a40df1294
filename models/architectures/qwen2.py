"""Define Qwen2 and Qwen2.5 (https://arxiv.org/abs/2412.15115): Llama with a bias on q, k and v."""

from models.architectures.llama import Llama
from models.architectures.window import find_window
from models.json_reader import ConfigReader


class Qwen2(Llama):
    """States only its difference from Llama."""

    name, model_type = "Qwen2ForCausalLM", "qwen2"
    gguf_name, gguf_pairs = "qwen2", False
    model_types = ("qwen2",)

    def window(self, reader: ConfigReader) -> int | None:
        return find_window(reader, used=reader.get("use_sliding_window", bool, False),
                           by_layer=True)

    def biases(self, reader: ConfigReader) -> frozenset[str]:
        return frozenset(("q_proj", "k_proj", "v_proj"))
