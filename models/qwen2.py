"""Qwen2 and Qwen2.5 (https://arxiv.org/abs/2412.15115): Llama with a bias on q, k and v."""

from models.config import ConfigReader, ModelConfig
from models.llama import Llama


class Qwen2(Llama):
    """States only its difference from Llama."""

    name = "Qwen2ForCausalLM"

    def config(self, reader: ConfigReader) -> ModelConfig:
        reader.require("use_sliding_window", False)
        return super().config(reader)

    def biases(self, reader: ConfigReader) -> frozenset[str]:
        return frozenset(("q_proj", "k_proj", "v_proj"))
