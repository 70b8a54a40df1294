"""Holds the table of clients in docs/server.md: every client has passed."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CLIENTS = re.findall(r"^    \[([\w-]+)\]=", (ROOT / "tools/clients/run.sh").read_text(), re.M)


def rows(page: str) -> dict[str, list[str]]:
    """Return the table's rows by client."""
    table = page.split("<!-- clients: ")[1].split("<!-- clients end -->")[0]
    found = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return {name: rest for name, *rest in found[1:]}


def test_every_client_has_a_script_and_has_passed():
    scripts = {p.stem.removeprefix("try_").replace("_", "-")
               for p in (ROOT / "tools/clients").glob("try_*.py")}
    table = rows((ROOT / "docs/server.md").read_text())
    assert set(CLIENTS) == scripts == set(table) and len(CLIENTS) >= 8
    for name, (version, done, result) in table.items():
        assert re.match(r"\d+\.\d+", version) and len(done) > 20 and result == "pass", name


@pytest.fixture
def written(tmp_path):
    """Return write(rows) -> (exit code, page) for a copy of the page."""
    for path in ("tools/clients/table.py", "docs/server.md"):
        (tmp_path / path).parent.mkdir(parents=True)
        shutil.copy(ROOT / path, tmp_path / path)
    (tmp_path / "rows").mkdir()

    def write(**made: str):
        for name, row in made.items():
            (tmp_path / "rows" / f"{name}.tsv").write_text(f"{name}\t{row}\n")
        done = subprocess.run([sys.executable, str(tmp_path / "tools/clients/table.py"),
                               str(tmp_path / "rows"), "a", "b"], check=False)
        return done.returncode, (tmp_path / "docs/server.md").read_text()
    return write


def test_the_table_says_what_failed(written):
    before = (ROOT / "docs/server.md").read_text()
    code, page = written(a="1.0\tall | texts\tpass", b="-\t-\tfail: not installed")
    assert code == 1 and "| a | 1.0 | all \\| texts | pass |" in page
    assert rows(page)["b"] == ["-", "-", "fail: not installed"]
    assert page.split("<!-- clients")[0] == before.split("<!-- clients")[0]
    assert page.split("clients end -->")[1] == before.split("clients end -->")[1]
    code, page = written(b="2.0\tall\tpass")
    assert code == 0 and rows(page)["b"] == ["2.0", "all", "pass"]


def test_a_client_without_a_row_was_not_tried(written):
    code, page = written(a="1.0\tall\tpass")
    assert code == 1 and rows(page)["b"] == ["-", "-", "not tried"]
