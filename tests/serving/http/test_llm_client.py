"""Tests the server with `llm`, a command that people use in place of a library."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("llm", reason="needs llm")


@pytest.mark.parametrize("more", [[], ["--no-stream"]], ids=["stream", "whole"])
def test_a_prompt_on_the_command_line(server, tmp_path, story, more):
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: ours\n  model_name: stories-llama2\n  api_base: {server.url}/v1\n")
    done = subprocess.run(
        [sys.executable, "-m", "llm", "-m", "ours", "Once upon a time", "-o", "max_tokens", "12",
         "-o", "temperature", "0", *more],
        env={**os.environ, "LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "any"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    ids = story.tokenizer.encode("Once upon a time", special=True)  # the template adds no BOS
    assert done.stdout.strip() == story.generate(ids, max_new_tokens=12).run().text.strip()
