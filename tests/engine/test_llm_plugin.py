"""plugins/llm-kernelyard: `llm` runs a model in its own process, without a server or a key."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import models

pytest.importorskip("llm", reason="needs llm")
PLUGIN = Path(__file__).parents[2] / "plugins/llm-kernelyard"
GREEDY = ("-o", "temperature", "0", "-o", "max_tokens", "8")
TEMPLATE = ("{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}: {% else %}"
            "{{ m.content }} {% endif %}{% endfor %}")


@pytest.fixture
def llm(tmp_path, monkeypatch):
    """Return llm(*arguments) -> (exit code, output), run in this process with the plugin."""
    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    for name in [name for name in os.environ if name.endswith("_API_KEY")]:
        monkeypatch.delenv(name)
    import llm_kernelyard
    from click.testing import CliRunner
    from llm.cli import cli
    from llm.plugins import load_plugins, pm
    load_plugins()
    if not pm.has_plugin("kernelyard"):
        pm.register(llm_kernelyard, "kernelyard")

    def run(*arguments):
        result = CliRunner().invoke(cli, arguments)
        return result.exit_code, result.output
    return run


def test_the_command_finds_the_plugin_and_prints_a_text(tmp_path, story):
    """The entry point is the one of its pyproject.toml."""
    info = tmp_path / "site/llm_kernelyard-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-kernelyard\nVersion: 0.1.0\n")
    (entry,) = re.findall(r"\[project\.entry-points\.llm\]\n(.*)\n",
                          (PLUGIN / "pyproject.toml").read_text())
    (info / "entry_points.txt").write_text(f"[llm]\n{entry.replace(chr(34), '')}\n")
    path = os.pathsep.join(filter(None, [str(tmp_path / "site"), str(PLUGIN),
                                         os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "llm", "-m", "kernelyard/stories-llama2", "-n",
         "Once upon a time", *GREEDY], stdin=subprocess.DEVNULL, capture_output=True,
        env={**os.environ, "PYTHONPATH": path, "LLM_USER_PATH": str(tmp_path)}, text=True,
        timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == story.generate("Once upon a time", max_new_tokens=8).run().text + "\n"


def test_models_and_their_options(llm):
    code, said = llm("models", "--options")
    assert code == 0 and "Kernelyard: kernelyard\n" in said
    for name in ("stories-llama2", "stories-llama3", "stories-qwen2"):
        assert f"Kernelyard: kernelyard/{name}\n" in said
    assert "max_tokens: int" in said and "backend: str" in said


def test_it_streams_and_keeps_the_model(llm, story):
    from llm import get_model
    model = get_model("kernelyard/stories-llama2")
    response = model.prompt("Once upon a time", temperature=0, max_tokens=8)
    pieces, loaded = list(response), model._loaded
    expected = story.generate("Once upon a time", max_new_tokens=8).run()
    assert len(pieces) > 2 and "".join(pieces) == expected.text
    assert (response.input_tokens, response.output_tokens) == (len(expected.prompt_ids), 8)
    whole = model.prompt("Once upon a time", stream=False, temperature=0.9, seed=3, max_tokens=8)
    sampled = story.generate("Once upon a time", max_new_tokens=8, temperature=0.9, seed=3).run()
    assert whole.text() == sampled.text and model._loaded is loaded
    other = model.prompt("Once upon a time", max_context=64, temperature=0, max_tokens=8)
    assert other.text() == expected.text and model._loaded is not loaded
    model._loaded[1].close()


def test_a_conversation_goes_on(llm, tmp_path):
    """`llm -c` renders what was said before by the chat template."""
    template = tmp_path / "chat.jinja"
    template.write_text(TEMPLATE)
    folder = str(models.checkpoints.base.SHIPPED / "stories-llama3")
    more = ("-o", "model", folder, "-o", "chat_template", str(template), *GREEDY)
    code, first = llm("-m", "kernelyard", "-s", "Tell", "The dog ran.", *more)
    assert code == 0
    code, second = llm("-c", "The cat sat.", *more)
    assert code == 0
    with models.load("stories-llama3") as model:
        def reply(text):
            ids = model.tokenizer.encode(text, special=True)
            return model.generate(ids, max_new_tokens=8, sampling="model", temperature=0).run().text
        asked = "Tell: The dog ran. "
        assert first == reply(asked) + "\n"
        assert second == reply(f"{asked}{reply(asked)} The cat sat. ") + "\n"


ERRORS = [
    (["-m", "kernelyard"], "needs -o model PATH"),
    (["-m", "kernelyard", "-o", "model", "nowhere"], "nowhere"),
    (["-m", "kernelyard/stories-llama2", "-o", "model", "x"], "goes with -m kernelyard"),
    (["-m", "kernelyard/stories-llama2", "-o", "backend", "none"], "unknown backend 'none'"),
    (["-m", "kernelyard/stories-llama2", "-o", "temperature", "-1"], "temperature is -1.0"),
    (["-m", "kernelyard/stories-llama2", "-s", "Be"], "has no chat template")]


def test_errors_are_one_line(llm):
    for arguments, said in ERRORS:
        code, output = llm(*arguments, "-n", "hi")
        assert code == 1 and said in output and "Traceback" not in output
        assert output.startswith("Error: ") and output.count("\n") == 1
