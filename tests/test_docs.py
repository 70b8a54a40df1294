"""The documentation is executed: what it says must work as written."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from models.run import parser

ROOT = Path(__file__).parent.parent


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


def commands(page: str) -> list[list[str]]:
    lines = "".join(blocks(page, "console")).splitlines()
    return [shlex.split(line[2:], comments=True) for line in lines if line.startswith("$ ")]


def run(command: list[str], folder: Path, site: Path | None = None) -> str:
    tools = {"pip": ["-m", "pip"], "pytest": ["-m", "pytest"], "python": []}
    program = [sys.executable, *tools[command[0]], *command[1:]]
    if command[:2] == ["pip", "install"]:  # into a folder of the test's, and without a network
        program += ["--no-build-isolation", "--no-deps", "--quiet", "--target", str(site)]
    env = {**os.environ, "PYTHONPATH": str(site)} if site else dict(os.environ)
    done = subprocess.run(program, cwd=folder, env=env, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}"
    return done.stdout


def test_adding_a_backend(tmp_path):
    page, site = "docs/adding-a-backend.md", tmp_path / "site"
    for text in [*blocks(page, "toml"), *blocks(page, "python")]:
        first, _, rest = text.partition("\n")
        path = tmp_path / first.removeprefix("# file: ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(rest)
    install, listing, conformance, check, explain = commands(page)
    run(install, tmp_path, site)
    assert re.search(r"my_backend.*cpu.*available: my_backend.*kernelyard-my-backend 0.1.0",
                     run(listing, tmp_path, site))
    report = run(conformance, tmp_path, site)
    ran = int(re.search(r"(\d+) passed", report)[1])
    assert ran >= 8 + 15, report  # the samples of rms_norm, and the error samples of every op
    checked = run(check, tmp_path, site)
    assert "agrees with reference" in checked and checked.startswith("Once upon a time, there was")
    explained = run(explain, tmp_path, site)
    assert "my_backend:rms_norm" in explained and "cpu_numpy:attention" in explained


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md", "docs/adding-a-backend.md",
                                  "docs/file-formats.md"])
def test_links_and_paths_exist(page):
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (ROOT / page).parent.joinpath(link).exists(), link
    for path in re.findall(r"`((?:core|models|backends|tests|docs|tools)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


def test_readme_commands(tmp_path):
    """Every models.run line of the README, as written; set-up lines are CI's to run."""
    lines = [c for c in commands("README.md") if c[:3] == ["python", "-m", "models.run"]]
    assert len(lines) >= 4
    for line in lines:
        run(line, tmp_path)


def test_readme_lists_every_option():
    text = (ROOT / "README.md").read_text()
    options = {o for a in parser()._actions for o in a.option_strings if o.startswith("--")}
    assert [o for o in sorted(options - {"--help"}) if f"`{o}" not in text] == []


def test_architecture_is_a_map():
    lines = (ROOT / "docs/architecture.md").read_text().splitlines()
    assert len(lines) < 80
    for file in [*(ROOT / "core").glob("*.py"), *(ROOT / "models").glob("*.py")]:
        if file.stem != "__init__":
            assert f"`{file.stem}`" in "\n".join(lines), f"{file.name} is not on the map"
