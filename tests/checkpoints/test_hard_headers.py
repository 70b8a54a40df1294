"""Numbers, headers and JSON that once took memory, time or a traceback, by the reader."""

import json
import resource
import struct

import numpy as np
import pytest
from format_models import REGISTRY, random_model
from good_files import SMALL
from safetensors.numpy import load_file, save_file
from small_folders import configure, load

from core.errors import CheckpointError, ConfigError, KernelyardError, TokenizerError
from core.plan.weights import no_progress
from models import plan
from models.checkpoints.base import read_checkpoint
from models.checkpoints.limits import LIMITS
from models.checkpoints.llama2c.writer import write_llama2c
from models.checkpoints.source import Source
from models.checkpoints.targets import choose_target


@pytest.mark.parametrize("number", [10**9, 2**31 - 2, 10**30])
@pytest.mark.parametrize("key", LIMITS)
def test_a_number_takes_no_memory(key, number, folder, capsys):
    """Every size of config.json, in loading, planning and exporting."""
    configure(folder, **{key: number})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigError, match=key):
        load(folder)
    assert plan.main(["--model", str(folder)]) == 2 and key in capsys.readouterr().err
    with pytest.raises(ConfigError, match=key):
        Source(read_checkpoint(folder, REGISTRY), REGISTRY)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10


@pytest.mark.parametrize("key", [k for k in LIMITS if k != "max_position_embeddings"])
def test_the_largest_number_is_compared_with_shapes(key, folder):
    configure(folder, **{key: LIMITS[key], **({"head_dim": 16} if "heads" in key else {})})
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        load(folder)
    said = str(caught.value)
    assert "asks for" in said or "is missing" in said or "multiple" in said
    if "num_key_value_heads" not in key:  # else the family refuses it
        with pytest.raises(CheckpointError, match=r"asks for|is missing"):
            choose_target("hf", Source(read_checkpoint(folder, REGISTRY), REGISTRY), None, None,
                          None)


def header(folder, edit, tail=b""):
    """Replace the header of model.safetensors by what `edit` makes of it: an object, or bytes."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    made = edit(json.loads(data[8:8 + length]))
    text = made if isinstance(made, bytes) else json.dumps(made).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length:] + tail)


def more(**entry):
    return lambda h: {**h, "x": {"dtype": "F32", "data_offsets": [0, 0], **entry}}


def moved(h):
    """Leave a hole of eight bytes after the first tensor."""
    tensors = (e for n, e in h.items() if n != "__metadata__" and e["data_offsets"][0] > 0)
    for entry in tensors:
        entry["data_offsets"] = [at + 8 for at in entry["data_offsets"]]
    return h


TWICE = b',"x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
HEADERS = {  # what: how the header changes, what follows the data, complaint
    "sizes without bound": (more(shape=[2**47] * 400_000), b"", "400000 dimensions"),
    "65 dimensions": (more(shape=[1] * 65), b"", "65 dimensions"),
    "empty and endless": (more(shape=[0, 2**47, 2**47]), b"", "needs 0 bytes"),
    "4,300 digits": (lambda h: json.dumps(h).encode()[:-1] + b',"x":' + b"9" * 4301 + b"}", b"",
                     "4301 digits"),
    "nested": (lambda h: b'{"__metadata__":' + b"[" * 200_000, b"", "too many levels"),
    "a name twice": (lambda h: json.dumps(h).encode()[:-1] + TWICE + TWICE + b"}", b"",
                     "'x' is there twice"),
    "a space first": (lambda h: b" " + json.dumps(h).encode(), b"", "begins with b' '"),
    "UTF-16": (lambda h: json.dumps(h).encode("utf-16"), b"", "begins with"),
    "bytes after the last": (lambda h: h, b"\0" * 8, "8 bytes after the last tensor"),
    "a hole": (moved, b"\0" * 8, "8 bytes before tensor"),
    "float8": (more(dtype="F8_E4M3", shape=[0]), b"", "is float8 .F8_E4M3.*take the model in bf16"),
    "a name without end": (lambda h: {**h, "a" * 3000: h["lm_head.weight"]}, b"", "512 at most"),
    "a name of control characters": (lambda h: {**h, "\x1b[2J": h["lm_head.weight"]}, b"",
                                     "expected printable")}


@pytest.mark.parametrize("what", HEADERS)
def test_safetensors_to_the_letter(what, folder):
    edit, tail, complaint = HEADERS[what]
    header(folder, edit, tail)
    with pytest.raises(CheckpointError, match=complaint):
        read_checkpoint(folder, REGISTRY)


TEXTS = {"nested": b"[" * 200_000, "a key twice": b'{"a": 1, "a": 2}', "NaN alone": b"NaN",
         "digits": b'{"hidden_size": ' + b"9" * 5000 + b"}", "empty": b"", "UTF-16": b"\xff\xfe{\0",
         "an infinite eps": b'{"architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e999}'}


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", TEXTS)
def test_json_of_any_kind(name, text, folder):
    (folder / name).write_bytes(TEXTS[text])
    if name != "config.json" and text == "an infinite eps":  # nobody asks for it there
        return load(folder)
    with pytest.raises((ConfigError, TokenizerError), match=r"config\.json"):
        load(folder)
    return None


def test_scales_of_our_folders_are_finite(tmp_path):
    from good_files import ours
    path, (weights, _) = ours(tmp_path)
    tensors = load_file(weights)
    for part in ("scales", "zeros"):
        name = f"model.layers.0.mlp.up_proj.weight.{part}"
        changed = tensors[name].copy()
        changed[0, 0] = np.inf
        save_file({**tensors, name: changed}, weights)
        with pytest.raises(CheckpointError, match=f"{part} are not finite"):
            load(path)


def gguf_file(tmp_path):
    pytest.importorskip("gguf", reason="needs the extra: pip install '.[gguf]'")
    from gguf_files import write_foreign
    return write_foreign(tmp_path / "m.gguf", random_model(**SMALL))[1]


def test_gguf_arrays_that_nobody_reads_take_no_memory(tmp_path):
    """8 million numbers: 290 MB as Python's integers."""
    path = gguf_file(tmp_path)
    read_checkpoint(path, REGISTRY)  # modules take memory as they are first imported
    data = path.read_bytes()
    count, entries = 1 << 22, struct.unpack_from("<Q", data, 16)[0]
    added = b"".join(struct.pack("<Q", 3) + key + struct.pack("<IIQ", 9, 0, count) + bytes(count)
                     for key in (b"a.a", b"a.b"))
    # the data begins at a multiple of 32, so a whole number of these is added
    added += struct.pack("<Q", 3) + b"a.c" + struct.pack("<IQ", 8, 0)
    pad = -len(added) % 32
    added = added[:-8] + struct.pack("<Q", pad) + b"x" * pad
    path.write_bytes(data[:16] + struct.pack("<Q", entries + 3) + data[24:24] + added + data[24:])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read_checkpoint(path, REGISTRY)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10


def test_gguf_tensors_lie_end_to_end(tmp_path):
    path = gguf_file(tmp_path)
    data = bytearray(path.read_bytes())
    at = data.index(b"blk.0.attn_k.weight") + 19 + 4 + 16 + 4
    offset, = struct.unpack_from("<Q", data, at)
    struct.pack_into("<Q", data, at, offset - 32)
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="where the one before it ends"):
        read_checkpoint(path, REGISTRY)


def test_a_sentencepiece_vocabulary_without_control_tokens(tmp_path):
    """`max` of one number is a TypeError."""
    from good_files import llama2c
    from sentencepiece import SentencePieceProcessor

    path, _ = llama2c(0)(tmp_path)
    model = bytearray((tmp_path / "tokenizer.model").read_bytes())
    for text in (b"<s>", b"</s>"):  # control (3) becomes user-defined (4)
        at = model.index(b"\n" + bytes([len(text)]) + text) + 2 + len(text)
        at = model.index(b"\x18\x03", at)
        model[at + 1] = 4
    (tmp_path / "tokenizer.model").write_bytes(model)
    processor = SentencePieceProcessor(model_proto=bytes(model))
    assert not processor.is_control(1) and not processor.is_control(2)
    read_checkpoint(f"kuiper-llama2:{path}", REGISTRY)


def test_a_piece_that_is_not_utf_8(folder):
    """SentencePiece hands it on as it is, and its wrapper decodes it."""
    model = (folder / "tokenizer.model").read_bytes()
    at = model.index(b"the")
    (folder / "tokenizer.model").write_bytes(model[:at] + b"t\xc6e" + model[at + 3:])
    try:
        load(folder)
    except KernelyardError as error:
        assert "tokenizer" in str(error)


def test_an_angle_table_is_written_in_pieces(tmp_path):
    """llama2.c's v0 holds cos and sin of every position: 2 x 65536 x 8 floats."""
    source = Source(random_model(**{**SMALL, "positions": 1 << 16}), REGISTRY)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    write_llama2c(source, tmp_path / "m", 0, no_progress)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10
