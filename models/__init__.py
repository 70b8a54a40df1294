"""kernelyard models: graph builders, checkpoints, tokenizers and generation.

    model = models.load("stories-llama2", backend="cpu_numpy")
    for piece in model.generate("Once upon a time", max_new_tokens=60):
        print(piece, end="")
"""

from models.engine.load import load
from models.engine.model import Model

__all__ = ["Model", "load"]
