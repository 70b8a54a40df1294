"""The documentation is executed: what it says must work as written."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hub_cache import lay_out

from models.checkpoints.base import SHIPPED
from models.run import parser

ROOT = Path(__file__).parents[2]


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


def commands(page: str) -> list[list[str]]:
    lines = "".join(blocks(page, "console")).splitlines()
    return [shlex.split(line[2:], comments=True) for line in lines if line.startswith("$ ")]


def run(command: list[str], folder: Path, site: Path | None = None, code: int = 0) -> str:
    tools = {"pip": ["-m", "pip"], "kernelyard": ["-m", "kernelyard"], "python": []}
    program = [sys.executable, *tools[command[0]], *command[1:]]
    if command[:2] == ["pip", "install"]:  # into a folder of the test's, and without a network
        program += ["--no-build-isolation", "--no-deps", "--quiet", "--target", str(site)]
    path = os.pathsep.join(filter(None, [site and str(site), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path} if path else dict(os.environ)
    done = subprocess.run(program, cwd=folder, env=env, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    assert done.returncode == code, f"{shlex.join(command)}\n{done.stdout}"
    return done.stdout


def write_files(page: str, folder: Path) -> None:
    """The page's `# file: NAME` blocks."""
    for text in [*blocks(page, "toml"), *blocks(page, "python")]:
        first, _, rest = text.partition("\n")
        if first.startswith("# file: "):
            path = folder / first.removeprefix("# file: ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(rest)


def test_find_the_bad_kernel(tmp_path):
    page, site = "docs/find-the-bad-kernel.md", tmp_path / "site"
    write_files(page, tmp_path)
    install, which, blame, replay = commands(page)
    run(install, tmp_path, site)
    found = run(which, tmp_path, site, code=1)
    for line in "".join(blocks(page, "text")).splitlines():
        assert line in found, found
    assert "it is rounding" in found and "vote: outlier: fast_attention" in found
    blamed = run(blame, tmp_path, site, code=1)
    carriers = re.search(r"blame: \d+ nodes carry .*runs\): (.*)", blamed)
    assert all(re.fullmatch(r"layers\.\d\.attention", n) for n in carriers[1].split(", "))
    wrong = run(replay, tmp_path, site, code=1)
    assert wrong.count("WRONG") == 2 and "reference: `out` ok" in wrong
    (fix,) = [b for b in blocks(page, "python") if b.startswith("# replace in: ")]
    where, _, lines = fix.partition("\n")
    source = tmp_path / where.removeprefix("# replace in: ")
    assert source.read_text().count(lines) == 1
    source.write_text(source.read_text().replace(lines, ""))
    run([*install, "--upgrade"], tmp_path, site)
    assert "fast_attention:attention: `out` ok" in run(replay, tmp_path, site)


def test_adding_a_backend(tmp_path):
    page, site = "docs/adding-a-backend.md", tmp_path / "site"
    write_files(page, tmp_path)
    install, listing, conformance, check, explain = commands(page)
    run(install, tmp_path, site)
    assert re.search(r"my_backend.*cpu.*available: my_backend.*kernelyard-my-backend 0.1.0",
                     run(listing, tmp_path, site))
    report = run(conformance, tmp_path, site)
    ran = int(re.search(r"(\d+) passed", report)[1])
    assert ran >= 8 + 15, report  # the examples of rms_norm, and the error examples of every op
    checked = run(check, tmp_path, site)
    assert "agrees with reference" in checked and "\nOnce upon a time, there was" in checked
    explained = run(explain, tmp_path, site)
    assert "my_backend:rms_norm" in explained and "cpu_numpy:attention" in explained
    for command in commands("docs/conformance.md")[1:]:
        run(command, tmp_path, site)
    assert "| rms_norm | float32 | pass |" in (tmp_path / "matrix.md").read_text()
    assert '"my_backend:rms_norm"' in (tmp_path / "kernelyard.lock").read_text()


def test_run_your_own_model(tmp_path, monkeypatch):
    """Every line, with a shipped model in the hub's cache under the page's name."""
    page = "docs/run-your-own-model.md"
    lay_out(tmp_path / "cache", SHIPPED / "stories-qwen2", "Qwen/Qwen2.5-0.5B",
            refs=("main", "refs/pr/1"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = [run(line, tmp_path) for line in commands(page)]
    texts = [re.search(r"^Once upon a time.*", s, re.M)[0] for s in said
             if "prefill" in s and "check reference" in s]
    assert len(texts) == 4 and len(set(texts)) == 1 and len(texts[0]) > 40, texts
    assert any("Qwen/Qwen2.5-0.5B@refs/pr/1" in s and "stories-llama2" in s for s in said)
    assert "agrees with reference" in said[-1]
    (code,) = blocks(page, "python")
    assert run(["python", "-c", code], tmp_path).strip() in texts[0]


def test_serving(tmp_path):
    """Every program and line; the third request of the file is refused, as the page says."""
    page = "docs/serving.md"
    *texts, form = (run(["python", "-c", code], tmp_path) for code in blocks(page, "python"))
    assert len(texts) == 2 and all(len(text.splitlines()) >= 2 for text in texts)
    assert isinstance(json.loads(form), dict)
    (tmp_path / "requests.jsonl").write_text(*blocks(page, "json"))
    first, again, plan, bench = commands(page)
    run(first, tmp_path, code=2)
    results = [json.loads(x) for x in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert sorted(r["custom_id"] for r in results) == ["one", "three", "two"]
    (refused,) = [r["error"] for r in results if r["error"]]
    assert (refused["param"], refused["line"]) == ("suffix", 3)
    assert "has 3 results" in run(again, tmp_path, code=2)
    assert "an engine for 8 sequences" in run(plan, tmp_path)
    assert "0 wrong" in run(bench, tmp_path)


PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "tests/README.md",
         *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_exist(page):
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (ROOT / page).parent.joinpath(link).exists(), link
    for path in re.findall(r"`((?:core|models|backends|tests|docs|tools)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


def test_readme_commands(tmp_path):
    """Run every models.run line of the README, as written; set-up lines are CI's to run."""
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
    for top in ("core", "models"):
        for room in (ROOT / top).iterdir():
            if (room / "__init__.py").exists():
                assert f"`{room.name}`" in "\n".join(lines), f"{top}/{room.name} is not on the map"
