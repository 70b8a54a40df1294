"""Small Hugging Face folders that the tests of readers damage."""

import pytest
from good_files import folder_of

from models import export


@pytest.fixture
def folder(tmp_path):
    """A small Llama-2 as a Hugging Face folder."""
    (tmp_path / "m").mkdir()
    return folder_of(tmp_path / "m")[0]


@pytest.fixture
def qwen(tmp_path):
    """A small Qwen2, whose q, k and v have biases."""
    (tmp_path / "q").mkdir()
    return folder_of(tmp_path / "q", "qwen2")[0]


@pytest.fixture
def run_export(tmp_path, capsys):
    """Run the command in this process; returns (exit code, stdout, stderr)."""
    def run(model, to, out, *options):
        code = export.main(["--model", str(model), "--to", to, "--out", str(tmp_path / out),
                            *options])
        captured = capsys.readouterr()
        return code, captured.out, captured.err
    return run
