"""docs/security.md has the table that tests/support/attacks.py lists, and its tests run in CI."""

import ast
import re

import pytest
from attacks import ATTACKS, BEGIN, PAGE, ROOT, table
from pages import page_with

ROWS = [row for rows in ATTACKS.values() for row in rows]
CI = (ROOT / ".ci/run").read_text()


def runs_in_ci(file, test):
    """Return why a test does not run there, or None."""
    path = ROOT / file
    if not path.exists():
        return "no such file"
    found = [node for node in ast.parse(path.read_text()).body
             if isinstance(node, ast.FunctionDef) and node.name == test]
    if len(found) != 1 or not test.startswith("test_"):
        return f"{len(found)} tests of that name"
    if not file.startswith("tests/") or file.startswith("tests/gpu/"):
        return "CI does not run that folder"
    marks = " ".join(ast.unparse(d) for d in found[0].decorator_list)
    if re.search(r"\b(large|skip|xfail)\b", marks):
        return f"it is marked: {marks}"
    return "it asks for a GPU" if "on_gpu" in {a.arg for a in found[0].args.args} else None


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[3])
def test_the_row_s_test_runs(row):
    assert runs_in_ci(row[2], row[3]) is None


def test_ci_runs_all_tests_but_those_of_the_matrix():
    assert "printf '%s\\n' tests/*/ tests/test_*.py" in CI
    assert re.findall(r"--ignore-glob \"([^\"]+)\"", CI) == ["tests/backends/test_cpu_numba*"]
    assert '"${long[@]}" tests/support tests/__pycache__)' in CI  # these have no tests to add
    assert not [row for row in ROWS if row[2].startswith("tests/backends/test_cpu_numba")]


def test_the_check_can_fail():
    assert runs_in_ci("tests/no.py", "test_a") and runs_in_ci("tests/test_files.py", "test_no")
    assert runs_in_ci("tests/gpu/test_gpu_memory.py", next(
        node.name for node in ast.parse((ROOT / "tests/gpu/test_gpu_memory.py").read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")))


def test_the_page_is_what_is_written():
    text = PAGE.read_text()
    assert page_with(text, BEGIN, table()) == text, "run python tests/support/attacks.py"


def test_security_md_links_to_it():
    assert "(docs/security.md)" in (ROOT / "SECURITY.md").read_text()
