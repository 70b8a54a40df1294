"""Small Hugging Face folders that the tests of readers damage."""

import pytest
from good_files import folder_of


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
