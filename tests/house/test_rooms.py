"""The rooms of core and models: each imports only those before it, and none grows without bound."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ORDER = {
    "core": ["errors", "files", "interrupts", "reading", "output", "isolation", "tensor", "ir",
             "ops", "failures", "plugins", "installed", "devices", "plan", "runtime", "verify",
             "conformance"],
    "models": ["json_reader", "architectures", "tokenizers", "checkpoints", "serving", "engine",
               "plugin", "cli", "analysis", "run", "serve", "plan", "models", "doctor", "bench",
               "batch", "conform", "verify", "export", "__main__"]}
TOGETHER = ("tensor", "ir", "plugins", "plan", "runtime")


def imports(source: str):
    """Yield the full name of everything that a file imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def against_the_order(top: str, here: str, source: str) -> list[str]:
    order = ORDER[top]
    rooms = [(name, name.split(".")[1]) for name in imports(source)
             if name.split(".")[0] == top and len(name.split(".")) > 1]
    return [name for name, room in rooms
            if room in order and order.index(room) > order.index(here)]


def test_the_check_can_fail():
    assert against_the_order("core", "plan", "from core.runtime.session import Session")
    assert against_the_order("core", "tensor", "def f():\n    import core.ir.op")
    assert not against_the_order("core", "plan", "from core.ir.op import Op")


@pytest.mark.parametrize("top", ORDER)
def test_rooms_are_in_order(top):
    folder = ROOT / top
    found = {p.stem if p.is_file() else p.name for p in folder.iterdir()
             if p.suffix == ".py" or (p / "__init__.py").exists()} - {"__init__"}
    assert found == set(ORDER[top]), "a new room has a place in the order"
    wrong = {}
    for file in folder.rglob("*.py"):
        here = file.relative_to(folder).with_suffix("").parts[0]
        if here != "__init__" and (bad := against_the_order(top, here, file.read_text())):
            wrong[file.relative_to(ROOT).as_posix()] = bad
    assert wrong == {}


def lines(folder: Path, *, deep: bool = True) -> int:
    return sum(len(f.read_text().splitlines())
               for f in (folder.rglob("*.py") if deep else folder.glob("*.py")))


@pytest.mark.parametrize("folder", sorted(
    f.relative_to(ROOT).as_posix() for top in ("core", "models") for f in (ROOT / top).rglob("*")
    if (f / "__init__.py").exists()))
def test_no_room_grows_without_bound(folder):
    assert lines(ROOT / folder, deep=False) <= 1900


def test_the_path_of_a_token_stays_small():
    assert lines(ROOT / "core/plan") < 1000
    assert sum(lines(ROOT / "core" / room) for room in TOGETHER) < 4500


def test_no_file_over_250_lines():
    long = {f.relative_to(ROOT).as_posix(): n
            for top in ("core", "models", "backends", "plugins", "kernelyard", "tools", "tests")
            for f in (ROOT / top).rglob("*") if f.suffix in (".py", ".cu", ".cuh")
            and ".venv" not in f.parts and "shipped" not in f.parts
            and (n := len(f.read_text().splitlines())) > 250}
    assert long == {}
