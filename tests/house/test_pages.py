"""Programs that measure some rows of a page's table leave its other rows."""

import importlib
from pathlib import Path

import pytest
from pages import page_with_rows

TOOLS = Path(__file__).parents[2] / "tools"
BEGIN = "<!-- here -->\n"
HEAD = "| what | side | found |\n|---|---|---|\n"
PAGE = (f"text\n{BEGIN}{HEAD}| a | left | 1 |\n| a | right | 2 |\n| gone | left | 3 |\n"
        "| c | left | 4 |\n<!-- end -->\nmore\n")


def test_new_rows_take_the_place_of_older_ones():
    new = f"{HEAD}| b | left | 8 |\n| a | left | 9 |\n"
    rows = "| a | left | 9 |\n| b | left | 8 |\n| c | left | 4 |\n"
    assert page_with_rows(PAGE, BEGIN, new, ["a", "b", "c"]) == (
        f"text\n{BEGIN}{HEAD}{rows}<!-- end -->\nmore\n")
    kept = page_with_rows(PAGE, BEGIN, new)
    assert [line.split("|")[3] for line in kept.splitlines()[4:-2]] == [" 9 ", " 3 ", " 4 ", " 8 "]


def test_rows_of_other_columns_go():
    other = "| what | found |\n|---|---|\n| b | 8 |\n"
    assert page_with_rows(PAGE, BEGIN, other) == f"text\n{BEGIN}{other}<!-- end -->\nmore\n"


@pytest.fixture
def tool(monkeypatch):
    """Return a function that gives a module of tools/, whose measurement is replaced."""
    monkeypatch.syspath_prepend(TOOLS)

    def get(name: str, found):
        module = importlib.import_module(name)
        monkeypatch.setattr(module, "run", lambda *_: found)
        return module
    return get


@pytest.mark.parametrize(("name", "old", "new"), [
    ("kills", "| load | SIGINT | 50 |  |  |  |  | 0 |\n", "| start | SIGKILL | 3 | 2 | 1 | - |"),
    ("fuzz", "| gguf | 3,000 |  |  |  |  | 0 |\n", "| index | 3 |  |  |  |  | 0 |\n")],
    ids=["kills", "fuzz"])
def test_a_part_of_a_table_is_measured(tool, tmp_path, monkeypatch, name, old, new):
    if name == "kills":
        module = tool("kills", {"SIGKILL": importlib.import_module("killed").Row(finished=1)})
        options = ["--case", "start"]
    else:
        module = tool("fuzz", (new, []))
        options = ["--reader", "index"]
    page = tmp_path / "page.md"
    page.write_text(f"{module.BEGIN}{module.HEAD}{old}<!-- end -->\n")
    monkeypatch.setattr("sys.argv", [name, "--count", "3", *options, "--page", str(page)])
    assert module.main() == 0
    text = page.read_text()
    assert text.startswith(module.BEGIN + module.HEAD) and text.count("\n") == 6
    assert old in text and new in text
