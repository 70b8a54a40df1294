"""GGUF's keys without the architecture's prefix: each row of the table in docs/file-formats.md."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from format_models import REGISTRY, random_model
from gguf_files import gguf, write_foreign

from core.errors import InputError, TokenizerError
from models.checkpoints.base import read_checkpoint
from models.checkpoints.gguf import other_keys
from models.checkpoints.gguf.other_keys import check_others

PAGE = Path(__file__).parents[2] / "docs" / "file-formats.md"


def rows():
    text = PAGE.read_text().partition("### Other keys")[2].partition("\n## ")[0]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | "))
            for line in text.splitlines() if line.startswith("| `")]


def test_the_page_shows_the_table():
    assert rows() == [
        *((f"`{key}`", "used", why) for key, why in other_keys.USED.items()),
        *((f"`{key}`", "changes nothing", why) for key, why in other_keys.HARMLESS.items()),
        *((f"`{key}`", f"refused unless {said}", why)
          for key, (_, said, why) in other_keys.ONLY.items()),
        *((f"`{key}`", "refused", why) for key, why in other_keys.REFUSED.items())]


REST = [row for row in rows() if row[1] != "used"]


@pytest.mark.parametrize(("key", "done", "why"), REST, ids=[row[0] for row in REST])
def test_row(key, done, why):
    key = key.strip("`").replace("*", "some")
    if done == "changes nothing":
        check_others({key: 7}, "m")
        return
    with pytest.raises(InputError, match=re.escape(why)):
        check_others({key: 7}, "m")
    if key in other_keys.ONLY:
        check_others({key: other_keys.ONLY[key][0]}, "m")


def test_every_name_of_the_package_has_a_fate():
    """Tests of tokenizers, sampling and parts show what the used ones do."""
    names = {value for group in vars(gguf.constants.Keys).values() if isinstance(group, type)
             for name, value in vars(group).items() if isinstance(value, str)
             and not name.startswith("_") and "{arch}" not in value}
    assert len(names) > 90
    patterns = (*other_keys.USED, *other_keys.HARMLESS, *other_keys.ONLY, *other_keys.REFUSED)
    assert not [n for n in names if not any(fnmatchcase(n, p) for p in patterns)]
    with pytest.raises(TokenizerError, match=r"ggml.new is 3; it changes ids in ways that are not"):
        check_others({"tokenizer.ggml.new": 3}, "m")


TEMPLATE = "tokenizer.chat_template"


@pytest.mark.parametrize(("keys", "said"), [
    ({TEMPLATE: 7}, "chat template 'default' is 7, expected a text"),
    ({f"{TEMPLATE}.rag": True}, "chat template 'rag' is True, expected a text"),
    ({f"{TEMPLATE}s": ["rag"]}, r"expected the names .* which are \[\]"),
    ({f"{TEMPLATE}s": "rag"}, r"chat_templates is 'rag', expected the names")])
def test_templates_that_are_none(keys, said, tmp_path):
    _, path = write_foreign(tmp_path / "m.gguf", random_model(), **keys)
    with pytest.raises(TokenizerError, match=said):
        read_checkpoint(path, REGISTRY)


def test_a_named_template_needs_no_list(tmp_path):
    """llama.cpp finds one by its key alone."""
    _, path = write_foreign(tmp_path / "m.gguf", random_model(), **{f"{TEMPLATE}.rag": "x"})
    assert read_checkpoint(path, REGISTRY).tokenizer.template.sources == {"rag": "x"}


def test_a_file_with_such_a_key_is_refused(tmp_path):
    _, path = write_foreign(tmp_path / "m.gguf", random_model(),
                            **{"tokenizer.ggml.remove_extra_whitespaces": True})
    with pytest.raises(TokenizerError, match="whitespaces is True, only false is supported: it j"):
        read_checkpoint(path, REGISTRY)
