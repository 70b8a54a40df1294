"""Damaged files: each a clear CheckpointError, ConfigError or TokenizerError, whatever is damaged.
"""

import random
import shutil
import struct

import pytest
from format_models import REGISTRY, random_model
from gguf_files import write_foreign

from core.errors import CheckpointError, ConfigError, TokenizerError
from core.plan.weights import no_progress
from models import run
from models.architectures.base import find_architecture
from models.checkpoints.base import SHIPPED, read_checkpoint
from models.checkpoints.gguf.writer import write_gguf
from models.checkpoints.huggingface.tokenizer_files import write_tokenizer_files
from models.checkpoints.llama2c.kuiper_writer import write_kuiper
from models.checkpoints.llama2c.writer import write_llama2c
from models.checkpoints.source import Source

EXPECTED = (CheckpointError, ConfigError, TokenizerError)
SMALL = {"layers": 1, "dim": 32, "hidden": 48, "heads": 2, "kv_heads": 1, "positions": 8}
# format: family, how it is written, bytes of the header that mutations may hit
FORMATS = {
    "v0": ("llama2", lambda s, p: write_llama2c(s, p, 0, no_progress), 28),
    "v1": ("llama2", lambda s, p: write_llama2c(s, p, 1, no_progress), 40),
    "v2": ("llama2", lambda s, p: write_llama2c(s, p, 2, no_progress), 44),
    "kuiper": ("qwen2", lambda s, p: write_kuiper(s, p, False, no_progress), 28),
    "kuiper int8": ("llama3", lambda s, p: write_kuiper(s, p, True, no_progress), 32),
    "gguf": ("llama2", lambda s, p: write_gguf(s, p, "int8", no_progress), None),
    "gguf bpe": ("qwen2", lambda s, p: write_gguf(s, p, "f16", no_progress), None),
}


@pytest.fixture(scope="module", params=FORMATS)
def file(request, tmp_path_factory):
    """Return (path, bytes of the header) of one good file of each format."""
    family, write, header = FORMATS[request.param]
    folder = tmp_path_factory.mktemp("good")
    model = random_model(family, **SMALL)
    write(Source(model, REGISTRY), folder / "m.bin")
    write_tokenizer_files(model, folder)
    data = (folder / "m.bin").read_bytes()
    start = data.find(b"blk.0.") + 2000 if header is None else header
    return folder / "m.bin", start


def read(path):
    """Read as far as a load goes before weights are used."""
    checkpoint = read_checkpoint(path, REGISTRY)
    name = checkpoint.config.data["architectures"][0]
    find_architecture(name, REGISTRY).config(checkpoint.config)
    for tensor in checkpoint.arrays:
        _ = checkpoint.arrays[tensor]  # unpacks what was deferred


@pytest.fixture
def damaged(file, tmp_path):
    """Write other bytes in place of the good file, its tokenizer beside them."""
    good, header = file
    for other in good.parent.iterdir():
        if other != good:
            shutil.copy(other, tmp_path)

    def make(data):
        (tmp_path / "m.bin").write_bytes(data)
        return tmp_path / "m.bin"
    return good.read_bytes(), header, make


def test_good_file(file):
    read(file[0])


def test_truncated_anywhere(damaged):
    data, header, make = damaged
    rng = random.Random(2)
    places = {0, 1, 3, 4, 8, header - 1, header, len(data) - 1, len(data) - 4}
    while len(places) < 50:
        places.add(rng.randrange(len(data)))
    for size in sorted(places):
        with pytest.raises(EXPECTED) as caught:
            read(make(data[:size]))
        assert "m.bin" in str(caught.value), size


def test_longer_than_described(damaged):
    """GGUF may have padding at its end; the others end where their tensors do."""
    data, _, make = damaged
    path = make(data + b"\0" * 64)
    if data[:4] == b"GGUF":
        read(path)
    else:
        with pytest.raises(CheckpointError, match=r"describe"):
            read(path)


def test_wrong_magic(damaged):
    data, _, make = damaged
    for magic in (b"PK\3\4", b"\x93NUM", b"\xff" * 4, b"GGML"):
        with pytest.raises(EXPECTED):
            read(make(magic + data[4:]))


def test_mutated_headers(damaged):
    """Replace bytes and integers of the header, 300 times a format: 2,100 in total."""
    data, header, make = damaged
    rng = random.Random(7)
    refused = 0
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.randrange(header)
            if rng.random() < 0.5:
                changed[at] = rng.randrange(256)
            else:
                at = min(at & ~3, header - 4)
                number = rng.choice((0, 1, -1, 7, 2**31 - 1, -2**31, rng.randrange(-9999, 9999)))
                changed[at:at + 4] = struct.pack("<i", number)
        try:
            read(make(changed))
        except EXPECTED as error:
            assert len(str(error)) > 20
            refused += 1
    assert refused > 30  # many changes of a vocabulary's text or scores are harmless


def test_exit_code(damaged, capsys):
    """A user must see one line, code 2 and nothing on standard output."""
    data, header, make = damaged
    for wrong in (b"", data[:header // 2], data[:-1], b"PK\3\4" + data[4:]):
        code = run.main(["--model", str(make(wrong)), "--max-new-tokens", "1", "--prompt", "a"])
        said = capsys.readouterr()
        assert code == 2 and not said.out
        assert said.err.startswith("error: ") and said.err.count("\n") == 1, said.err


@pytest.fixture
def folder(tmp_path):
    """Return a Hugging Face folder, and the path and bytes of its weights."""
    shutil.copytree(SHIPPED / "stories-llama2", tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    return tmp_path / "m", weights, weights.read_bytes()


def test_safetensors_truncated_anywhere(folder):
    path, weights, data = folder
    rng, header = random.Random(2), 8 + int.from_bytes(data[:8], "little")
    places = {0, 1, 7, 8, 9, header - 1, header, len(data) - 1}
    while len(places) < 50:
        places.add(rng.randrange(len(data)))
    for size in sorted(places):
        weights.write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=r"model\.safetensors.*truncated"):
            read(path)


def test_safetensors_mutated_headers(folder):
    path, weights, data = folder
    rng, header = random.Random(7), 8 + int.from_bytes(data[:8], "little")
    refused = 0
    for _ in range(200):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 4))):
            changed[rng.randrange(header)] = rng.choice((rng.randrange(256), *b"0129[]{},:"))
        weights.write_bytes(changed)
        try:
            read(path)
        except EXPECTED as error:
            assert len(str(error)) > 20
            refused += 1
    assert refused > 50  # a changed name is found when the graph is built


HEADERS = {  # what: format, the seven integers, complaint
    "absurd dim": (-5, 48, 1, 2, 1, 640, 8), "absurd layers": (32, 48, 2**30, 2, 1, 640, 8),
    "heads do not divide": (32, 48, 1, 3, 1, 640, 8), "odd heads": (30, 48, 1, 2, 1, 640, 8),
    "no vocabulary": (32, 48, 1, 2, 1, 0, 8), "kv heads": (32, 48, 1, 2, 4, 640, 8),
    "promises more": (1 << 16, 1 << 18, 80, 64, 8, 1 << 17, 8192)}


@pytest.mark.parametrize("what", HEADERS)
def test_absurd_dimensions(what, tmp_path):
    numbers = struct.pack("<7i", *HEADERS[what])
    for start in (numbers, struct.pack("<Ii", 0x616B3432, 1) + numbers + b"\0",
                  struct.pack("<Ii", 0x616B3432, 2) + numbers + b"\0" + struct.pack("<i", 16)):
        (tmp_path / "m.bin").write_bytes(start.ljust(256, b"\0") + b"\0" * 4096)
        with pytest.raises(CheckpointError):
            read(tmp_path / "m.bin")


def test_llama2c_header_says_what_is_wrong(tmp_path):
    path = tmp_path / "m.bin"
    for version, tied, group, complaint in (
            (3, 0, 16, "states llama2.c version 3, expected 1"), (1, 7, 16, "the tied flag is 7"),
            (2, 0, 0, "groups of 0, which do not divide"),
            (1, 0, 0, "describes 184960 bytes, the file has 256; it is truncated")):
        head = struct.pack("<Ii7iBi", 0x616B3432, version, 32, 48, 1, 2, 1, 600, 8, tied, group)
        path.write_bytes(head.ljust(256, b"\0"))
        with pytest.raises(CheckpointError, match=complaint):
            read(path)


def test_gguf_header_says_what_is_wrong(tmp_path):
    _, path = write_foreign(tmp_path / "m.gguf", random_model(**SMALL))
    data = path.read_bytes()
    for at, value, complaint in ((4, struct.pack("<I", 9), "GGUF version 9, expected 2 or 3"),
                                 (4, struct.pack(">I", 3), "big-endian files"),
                                 (8, struct.pack("<Q", 1 << 60), "more than its"),
                                 (16, struct.pack("<Q", 1 << 60), "more than its"),
                                 (24, struct.pack("<Q", 1 << 40), "needs 1099511627776 bytes")):
        path.write_bytes(data[:at] + value + data[at + len(value):])
        with pytest.raises(CheckpointError, match=complaint):
            read(path)
    at = data.index(b"blk.0.ffn_up.weight") + 19
    for offset, value, complaint in ((0, struct.pack("<I", 9), "has 9 dimensions"),
                                     (4, struct.pack("<Q", 1 << 40), "ends at byte"),
                                     (20, struct.pack("<I", 9), "has type Q8_1"),
                                     (24, struct.pack("<Q", 1 << 50), "ends at byte")):
        path.write_bytes(data[:at + offset] + value + data[at + offset + len(value):])
        with pytest.raises(CheckpointError, match=complaint):
            read(path)


def test_scales_that_are_no_numbers(tmp_path):
    for kind in ("Q8_0", "Q4_1", "Q4_K", "Q6_K"):
        model = random_model(**{**SMALL, "dim": 256, "hidden": 256})
        _, path = write_foreign(tmp_path / kind, model, kind)
        data = bytearray(path.read_bytes())
        data[-34 * 16:] = b"\xff" * (34 * 16)
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="not finite"):
            read(path)
