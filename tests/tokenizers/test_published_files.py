"""Published tokenizers, where a folder of them is at hand: equal to transformers, and through GGUF.

`KERNELYARD_TEST_TOKENIZERS` names a folder, such as tools/published/fetch.py makes. Below it, every
folder with a tokenizer.json or a tokenizer.model is one tokenizer, every .gguf file a model, with
texts in .gguf.inp and their ids in .gguf.out, and every .jinja file a chat template. None is part
of the repository.
"""

import os
import unicodedata
from pathlib import Path

import pytest
from tokenizer_files import check_equal, mixtures, through_folder, through_gguf

from core.errors import TokenizerError
from models.checkpoints.gguf.header import read_header
from models.checkpoints.gguf.tokenizer import read_gguf_tokenizer
from models.tokenizers.base import load_tokenizer
from models.tokenizers.build import vocabulary_of
from models.tokenizers.pretokenizers import name_of

WHERE = os.environ.get("KERNELYARD_TEST_TOKENIZERS")
ROOT = Path(WHERE or "none")
FOLDERS = sorted({f.parent for name in ("tokenizer.json", "tokenizer.model")
                  for f in ROOT.rglob(name)}) if WHERE else []
FILES = sorted(ROOT.rglob("*.gguf")) if WHERE else []
TEMPLATES = sorted(ROOT.rglob("*.jinja")) if WHERE else []
REASON = "set KERNELYARD_TEST_TOKENIZERS to a folder of published tokenizers"


def some(paths):
    return [pytest.param(p, id=str(p.relative_to(ROOT))) for p in paths] or [
        pytest.param(None, marks=pytest.mark.skip(reason=REASON))]


@pytest.mark.parametrize("folder", some(FOLDERS))
def test_like_transformers(folder):
    transformers = pytest.importorskip("transformers", reason="needs the extra parity")
    judge = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer = load_tokenizer(folder)
    assert tokenizer.eos_id == judge.eos_token_id
    llama = "LlamaTokenizer" in tokenizer.settings.data.get("tokenizer_class", "")
    added = [t.text for t in tokenizer.added.values()]
    for text in mixtures(tokenizer):
        if llama and any(text.startswith(" ") or f"{t} " in text
                         for t in added if t):
            continue  # transformers 5 leaves out SentencePiece's space in front of a space
        for special in (False, True):
            assert tokenizer.encode(text, special=special) == judge(
                text, add_special_tokens=not special).input_ids, text


@pytest.mark.parametrize("folder", some(FOLDERS))
def test_through_our_exports(folder, tmp_path):
    tokenizer = load_tokenizer(folder)
    if hasattr(tokenizer, "to_json"):
        import json
        data = json.loads(tokenizer.to_json())
        if not data["model"].get("byte_fallback") and name_of(data) is None:
            pytest.skip("GGUF has no name for its pre-tokenizer")
    for made in (through_gguf(tokenizer, tmp_path), through_folder(tokenizer, tmp_path)):
        assert made.added == tokenizer.added
        check_equal(made, tokenizer)


def opened(header):
    """Read the tokenizer; skip the test where it is refused by name."""
    try:
        return read_gguf_tokenizer(header)
    except TokenizerError as refused:
        if "is not supported" in str(refused):
            pytest.skip(str(refused)[-500:])
        raise


@pytest.mark.parametrize("path", some([f for f in FILES if Path(f"{f}.inp").exists()]))
def test_published_ids(path):
    """Texts and their ids lie beside llama.cpp's vocabularies."""
    tokenizer = opened(read_header(path))
    texts = Path(f"{path}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    ids = [[int(i) for i in line.split()] for line in Path(f"{path}.out").read_text().splitlines()]
    assert len(ids) >= 46
    for text, expected in zip(texts, ids, strict=False):
        if unicodedata.normalize("NFC", text) == text:  # llama.cpp composes none, as Qwen's do
            assert tokenizer.encode(text, special=True) == expected, text


@pytest.mark.parametrize("path", some(TEMPLATES))
def test_chat_template(path, monkeypatch):
    pytest.importorskip("transformers", reason="needs the extra parity")
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "tools" / "published")
    import templates
    source, judge = path.read_text(encoding="utf-8"), templates.Judge()
    for case in templates.CASES:
        expected, found = templates.both(judge, source, case)
        assert found == expected, case


@pytest.mark.parametrize("path", some(FILES))
def test_gguf(path, tmp_path):
    """Every special token in a text is its id of the file's own table, and texts come back."""
    header = read_header(path)
    tokenizer, table = opened(header), header.metadata["tokenizer.ggml.tokens"]
    for text in mixtures(tokenizer):
        ids = tokenizer.encode(text, special=True)
        shown = [i for i in ids if i not in tokenizer.special_tokens.values()]
        for token, i in tokenizer.special_tokens.items():
            assert table[i] == token and (token not in text or i in ids or any(
                token in other for other in tokenizer.special_tokens if other != token))
        if len(shown) == len(ids):
            composed = text.replace("e\u0301", "é")  # as Qwen2's tokenizer does first
            assert tokenizer.decode(ids).strip() in (text.strip(), composed.strip())
    check_equal(through_folder(tokenizer, tmp_path), tokenizer)
    tokens = vocabulary_of(tokenizer, "x").tokens
    assert tokens[:tokenizer.base_size] == table[:tokenizer.base_size]
