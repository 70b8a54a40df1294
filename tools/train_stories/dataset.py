"""Turns stories and chats into rows of token ids for training."""

import random
from pathlib import Path

import chats
import stories
import torch
from recipes import Recipe, story_encoder
from transformers import AutoTokenizer

ROW = 256
CHAT_SHARE = 0.6


def tokenizer_corpus(recipe: Recipe, seed: int, count: int = 4000) -> list[str]:
    """Return texts from which the tokenizer learns its pieces."""
    rng = random.Random(seed)
    corpus = [stories.tell(stories.cast_story(rng), rng) for _ in range(count)]
    if recipe.chats:
        for _ in range(count // 2):
            for message in chats.converse(rng):
                corpus += [message["role"], message["content"]]
    return corpus


def rows(recipe: Recipe, folder: Path, seed: int, count: int) -> torch.Tensor:
    """Return ``count`` rows of ``ROW`` ids.

    Each row starts with a whole text, so that the model sees texts at the positions where it
    will write them, and is filled up with further texts, the last of them cut off.
    """
    rng = random.Random(seed)
    encode = story_encoder(recipe, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder) if recipe.chats else None

    def text() -> list[int]:
        if tokenizer is None or rng.random() > CHAT_SHARE:
            return encode(stories.tell(stories.cast_story(rng), rng))
        return tokenizer.apply_chat_template(chats.converse(rng), return_dict=False)

    table = torch.empty(count, ROW, dtype=torch.long)
    for row in table:
        ids = text()
        while len(ids) > ROW:
            ids = text()
        while len(ids) < ROW:
            ids += text()
        row.copy_(torch.tensor(ids[:ROW]))
    return table
