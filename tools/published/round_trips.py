"""Write published tokenizers in every format that can hold them, read them, and compare ids.

    python tools/published/round_trips.py FOLDER [TEXTS]

FOLDER is what fetch.py made. Each tokenizer encodes 2,000 texts, with its added tokens inside, with
and without BOS; a format holds it if all ids and decoded texts are equal. Prints a table in
Markdown. Exit code 1 where a format changes one without an error.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from core.errors import KernelyardError
from models.checkpoints.base import Checkpoint
from models.checkpoints.gguf.header import read_header
from models.checkpoints.gguf.package import load_gguf
from models.checkpoints.gguf.tokenizer import read_gguf_tokenizer
from models.checkpoints.gguf.writer import add_tokenizer
from models.checkpoints.huggingface.tokenizer_files import (
    copy_tokenizer_files,
    write_tokenizer_bin,
    write_tokenizer_files,
)
from models.json_reader import ConfigReader
from models.tokenizers.base import Tokenizer, load_tokenizer
from models.tokenizers.beside import load_tokenizer_bin

WORDS = ("Once", " upon", " a time", "\n", "\n\n", "  ", "    ", "\t", " ", "x", "I'm", " they'LL",
         "12345", "3.14", " 007", "½", "é", "e\u0301", "Å", "ǆ", "你好", "，世界。", "ひらがな",
         "カタカナ", "한국어", "Привет", " мир", "ελληνικά", "नमस्ते", "السلام", "שלום", "ไทย", "🦙",
         "👩\u200d💻", "\u00a0", "\u200b", "\ufeff", "\r\n", "(a+b)*c", "x_1 = {}", "<|", "|>",
         "</", "[INST]", "http://a.b/c?d=e", "\\n", "A\u030a", "ＦＵＬＬ", "ﬁ", "\u2581", "İ", "ß",
         "-", "...")


def texts(tokenizer: Tokenizer, count: int) -> Iterator[str]:
    """Yield random texts with the tokenizer's added tokens inside."""
    rng = random.Random(11)
    added = [t.text for t in getattr(tokenizer, "added", {}).values() if t.text]
    seen = set[str]()
    while len(seen) < count:
        seen.add("".join(rng.choice(added) if added and rng.random() < 0.3 else rng.choice(WORDS)
                         for _ in range(rng.randrange(1, 16))))
    yield from sorted(seen)


Coded = tuple[list[int], list[int], str]


def coded(tokenizer: Tokenizer, text: str) -> Coded:
    """Return ids with and without the frame of BOS and EOS, and the text that the latter give."""
    ids = tokenizer.encode(text, special=True)
    return tokenizer.encode(text), ids, tokenizer.decode(ids)


def _checkpoint(tokenizer: Tokenizer, folder: Path) -> Checkpoint:
    stops = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    return Checkpoint(folder, ConfigReader({}, str(folder)), {}, tokenizer, stops)


def _gguf(checkpoint: Checkpoint, to: Path) -> Tokenizer:
    writer = load_gguf().GGUFWriter(to / "t.gguf", "llama")
    add_tokenizer(writer, checkpoint, checkpoint.tokenizer.size + 3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return read_gguf_tokenizer(read_header(to / "t.gguf"))


def _copied(checkpoint: Checkpoint, to: Path) -> Tokenizer:
    copy_tokenizer_files(checkpoint, to)
    (to / "config.json").write_bytes((checkpoint.path / "config.json").read_bytes()
                                     if (checkpoint.path / "config.json").exists() else b"{}")
    return load_tokenizer(to)


def _written(checkpoint: Checkpoint, to: Path) -> Tokenizer:
    write_tokenizer_files(checkpoint, to)
    return load_tokenizer(to)


def _bin(checkpoint: Checkpoint, to: Path) -> Tokenizer:
    write_tokenizer_files(checkpoint, to)
    write_tokenizer_bin(checkpoint, to)
    return load_tokenizer_bin(to / "tokenizer.bin")


FORMATS: dict[str, Callable[[Checkpoint, Path], Tokenizer]] = {
    "`--to hf`": _copied, "tokenizer.json or .model, made anew": _written, "GGUF": _gguf,
    "llama2.c's tokenizer.bin": _bin}


def trip(tokenizer: Tokenizer, folder: Path, way: Callable[[Checkpoint, Path], Tokenizer],
         expected: Mapping[str, Coded]) -> tuple[str, bool]:
    """Return what a cell of the table says, and whether all is well."""
    with tempfile.TemporaryDirectory() as to:
        try:
            made = way(_checkpoint(tokenizer, folder), Path(to))
        except KernelyardError as error:
            return "refused: " + _short(str(error)), True
        equal = sum(coded(made, text) == found for text, found in expected.items())
        return f"{equal:,} of {len(expected):,}", equal == len(expected)


def _short(error: str) -> str:
    for sign, said in (("llama2.c runs SentencePiece", "not SentencePiece"),
                       ("has no name in GGUF", "no name for its pre-tokenizer"),
                       ("cannot hold this tokenizer: its ids give", "decoded text would differ"),
                       ("cannot hold this tokenizer", "ids would differ"),
                       ("cannot say that", "added tokens"),
                       ("as tokens 0, 1 and 2", "its <s> or </s> is another token")):
        if sign in error:
            return said
    return error[-160:]


def rows(root: Path) -> Iterator[tuple[str, Path, Tokenizer]]:
    """Yield every tokenizer below a folder that can be read."""
    for folder in sorted({f.parent for name in ("tokenizer.json", "tokenizer.model")
                          for f in root.rglob(name)}):
        yield folder.name, folder, load_tokenizer(folder)
    for file in sorted(root.rglob("*.gguf")):
        try:
            yield file.stem, file, read_gguf_tokenizer(read_header(file))
        except KernelyardError:
            continue  # a tokenizer of another kind: the table of vocabularies says so


def main(root: Path, count: int) -> int:
    """Print the table."""
    wrong = 0
    print(f"| tokenizer | added tokens | {' | '.join(FORMATS)} |\n|{'---|' * (len(FORMATS) + 2)}")
    for name, folder, tokenizer in rows(root):
        expected = {text: coded(tokenizer, text) for text in texts(tokenizer, count)}
        cells = [trip(tokenizer, folder, way, expected) for way in FORMATS.values()]
        wrong += sum(not ok for _, ok in cells)
        print(f"| {name} | {len(tokenizer.added)} | {' | '.join(said for said, _ in cells)} |",
              flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2000))
