"""Describes the three models: how each folder is laid out, and how its texts become token ids."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import configs
import sentencepiece
import tokenizers_
import torch
from configs import Json
from transformers import AutoTokenizer, LlamaConfig

Encoder = Callable[[str], list[int]]


@dataclass(frozen=True)
class Recipe:
    """Holds one model's configuration, its end-of-text ids for generation, and its training
    length."""

    name: str
    config: Json
    tokenizer_config: Json
    stop_ids: int | list[int]
    dtype: torch.dtype
    chats: bool
    steps: int


LLAMA2 = Recipe(
    name="llama2",
    config=configs.LLAMA2_CONFIG,
    tokenizer_config=configs.LLAMA2_TOKENIZER,
    stop_ids=2,
    dtype=torch.float32,
    chats=False,
    steps=8000,
)
LLAMA3 = Recipe(
    name="llama3",
    config=configs.LLAMA3_CONFIG,
    tokenizer_config=configs.LLAMA3_TOKENIZER,
    stop_ids=[636, 639],
    dtype=torch.bfloat16,
    chats=True,
    steps=6500,
)
QWEN2 = Recipe(
    name="qwen2",
    config=configs.QWEN2_CONFIG,
    tokenizer_config=configs.QWEN2_TOKENIZER,
    stop_ids=[639, 637],
    dtype=torch.bfloat16,
    chats=True,
    steps=6500,
)
RECIPES = {recipe.name: recipe for recipe in (LLAMA2, LLAMA3, QWEN2)}


def write_json(path: Path, content: Json) -> None:
    """Write JSON in the layout that the hub's files have."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_folder(recipe: Recipe, folder: Path, corpus: list[str]) -> None:
    """Write everything but the weights."""
    size = recipe.config["vocab_size"]
    if recipe is LLAMA2:
        tokenizers_.build_sentencepiece(folder, corpus, size)
    elif recipe is LLAMA3:
        tokenizers_.build_llama3(folder, corpus, size, configs.LLAMA3_SPECIALS)
    else:
        tokenizers_.build_qwen2(folder, corpus, size, configs.QWEN2_SPECIALS)
    if recipe is LLAMA3:
        LlamaConfig(**recipe.config).save_pretrained(folder)
    else:
        write_json(folder / "config.json", recipe.config)
    write_json(folder / "tokenizer_config.json", recipe.tokenizer_config)
    generation = {
        "bos_token_id": recipe.config["bos_token_id"],
        "eos_token_id": recipe.stop_ids,
        "transformers_version": recipe.config.get("transformers_version", "5.0.0"),
    }
    write_json(folder / "generation_config.json", generation)


def story_encoder(recipe: Recipe, folder: Path) -> Encoder:
    """Return a function that gives the token ids of a plain story, with what opens and closes a
    text."""
    if recipe is LLAMA2:
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        return lambda story: [1, *pieces.encode(story), 2]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    end = tokenizer.convert_tokens_to_ids(
        "<|end_of_text|>" if recipe is LLAMA3 else "<|endoftext|>"
    )
    return lambda story: [*tokenizer(story)["input_ids"], end]
