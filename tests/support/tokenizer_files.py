"""Makes small tokenizers with awkward contents, and sends tokenizers through files."""

import json
import random
from pathlib import Path

from models.checkpoints.base import SHIPPED, Checkpoint
from models.checkpoints.gguf.header import read_header
from models.checkpoints.gguf.tokenizer import read_gguf_tokenizer
from models.checkpoints.huggingface.tokenizer_files import (
    write_tokenizer_bin,
    write_tokenizer_files,
)
from models.json_reader import ConfigReader
from models.tokenizers.base import load_tokenizer
from models.tokenizers.beside import load_tokenizer_bin

WORDS = ("once", " upon", " a", "\n", "  ", "x", "12345", "é", "e\u0301", "你好", "🦙", "'s", "<|",
         "|>", "_")


def entry(i, content, special=True, **flags):
    """Return an added token as tokenizer.json writes it."""
    return {"id": i, "content": content, "special": special, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False, **flags}


def json_of(name, added, *, first=False, **blocks):
    """Return a shipped tokenizer.json with `added` in place of its added tokens, at its end or
    before all other ids, which is where SmolLM2 and DeepSeek have them. Ids of None are given in
    order."""
    data = json.loads((SHIPPED / name / "tokenizer.json").read_text(encoding="utf-8"))
    old = {e["content"] for e in data["added_tokens"]}
    vocab = {t: i for t, i in data["model"]["vocab"].items() if t not in old}
    ids = sorted(vocab, key=vocab.get)
    names = [e["content"] for e in added]
    order = [*names, *ids] if first else [*ids, *names]
    data["model"]["vocab"] = {t: i for i, t in enumerate(order)}
    data["added_tokens"] = sorted(
        ({**e, "id": order.index(e["content"])} for e in added), key=lambda e: e["id"])
    data["post_processor"] = None
    return json.dumps({**data, **blocks})


def mixtures(tokenizer, count=300, seed=5):
    """Yield random texts with the tokenizer's added tokens inside."""
    rng = random.Random(seed)
    added = [t.text for t in tokenizer.added.values()]
    for _ in range(count):
        yield "".join(rng.choice(added) if added and rng.random() < 0.35 else rng.choice(WORDS)
                      for _ in range(rng.randrange(1, 9)))


def check_equal(made, origin, count=300):
    """Check for equal ids and text, with and without the frame."""
    for text in mixtures(origin, count):
        for special in (False, True):
            ids = origin.encode(text, special=special)
            assert made.encode(text, special=special) == ids, text
            assert made.decode(ids) == origin.decode(ids), text


def checkpoint_of(tokenizer):
    return Checkpoint(Path("made"), ConfigReader({}, "made"), {}, tokenizer,
                      () if tokenizer.eos_id is None else (tokenizer.eos_id,))


def through_gguf(tokenizer, folder, padding=7):
    """Write it into a GGUF file without tensors, and read it."""
    import gguf

    from models.checkpoints.gguf.writer import add_tokenizer
    writer = gguf.GGUFWriter(folder / "t.gguf", "llama")
    add_tokenizer(writer, checkpoint_of(tokenizer), tokenizer.size + padding)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return read_gguf_tokenizer(read_header(folder / "t.gguf"))


def through_folder(tokenizer, folder):
    """Write it as files of a Hugging Face folder, and read them."""
    (folder / "hf").mkdir()
    write_tokenizer_files(checkpoint_of(tokenizer), folder / "hf")
    return load_tokenizer(folder / "hf")


def through_bin(tokenizer, folder):
    """Write it as an export to llama2.c does, and read tokenizer.bin."""
    write_tokenizer_files(checkpoint_of(tokenizer), folder)
    write_tokenizer_bin(checkpoint_of(tokenizer), folder)
    return load_tokenizer_bin(folder / "tokenizer.bin")
