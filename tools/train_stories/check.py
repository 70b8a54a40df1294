"""Checks a finished model folder through transformers, and prints what the model writes."""

from importlib.util import find_spec
from pathlib import Path

import torch
from rich.console import Console
from sentencepiece import SentencePieceProcessor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
)

LIMIT = 3_000_000
PROMPT = "Once upon a time"
REQUEST = "Tell me a story about a fox."
# No text with a leading space: there transformers leaves out the prefix that sentencepiece adds.
SAMPLES = [PROMPT, "12 apples,  two spaces", "naïve 東京 🦊\n\tend", "end "]


def greedy(model: PreTrainedModel, ids: list[int], count: int) -> list[int]:
    """Return the most likely continuation, up to a stop token or ``count`` tokens."""
    prompt = torch.tensor([ids])
    mask = torch.ones_like(prompt)
    output = model.generate(
        prompt, attention_mask=mask, max_new_tokens=count, do_sample=False, pad_token_id=0
    )
    return output[0, len(ids) :].tolist()


def has_protobuf() -> bool:
    """Return whether transformers can read ``tokenizer.model``, for which it needs protobuf."""
    return bool(find_spec("google") and find_spec("google.protobuf"))


def compare_with_sentencepiece(folder: Path, pieces: SentencePieceProcessor) -> None:
    """Fail where transformers and sentencepiece read ``tokenizer.model`` differently."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text in SAMPLES:
        expected, found = [1, *pieces.encode(text)], tokenizer(text)["input_ids"]
        if expected != found:
            raise ValueError(f"{text!r}: sentencepiece {expected}, transformers {found}")


def check(folder: Path, console: Console) -> None:
    """Fail on a folder that is too large or tokenizes wrongly; show greedy continuations."""
    size = sum(path.stat().st_size for path in folder.iterdir())
    if size > LIMIT:
        raise ValueError(f"{folder.name} has {size} bytes, more than {LIMIT}")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    console.print(f"{folder.name}: {size} bytes, {model.num_parameters()} parameters")
    if (folder / "tokenizer.model").exists():
        tokenizer = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        if has_protobuf():
            compare_with_sentencepiece(folder, tokenizer)
        else:
            console.print("protobuf is missing: transformers' tokenizer was not compared")
        prompts = {PROMPT: [1, *tokenizer.encode(PROMPT)]}
    else:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        chat = [{"role": "user", "content": REQUEST}]
        asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        prompts = {PROMPT: tokenizer(PROMPT)["input_ids"], REQUEST: asked}
    for prompt, ids in prompts.items():
        written = greedy(model, ids, 250)
        console.print(f"[bold]{prompt}[/] ({len(written)} tokens)", highlight=False)
        console.print(tokenizer.decode(written), markup=False, highlight=False)
