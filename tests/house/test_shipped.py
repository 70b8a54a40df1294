"""The shipped models: are small, whole, and tell a story in English."""

import random
import sys
from pathlib import Path

import pytest

import models
from models.checkpoints.base import DEFAULT_MODEL, SHIPPED, shipped_models

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def known_words():
    """Return every word that the training text's generator used in 3,000 stories."""
    sys.path.insert(0, str(ROOT / "tools/train_stories"))
    try:
        from stories import cast_story, tell
    finally:
        sys.path.pop(0)
    rng = random.Random(0)
    return {w for _ in range(3000) for w in words(tell(cast_story(rng), rng))}


def words(text: str) -> list[str]:
    return [w.strip('.,!?"').lower() for w in text.split()]


def test_three_small_models():
    assert shipped_models() == ["stories-llama2", "stories-llama3", "stories-qwen2"]
    assert DEFAULT_MODEL == "stories-llama2"
    for name in shipped_models():
        assert sum(f.stat().st_size for f in (SHIPPED / name).iterdir()) < 3_000_000


@pytest.mark.parametrize("name", shipped_models())
def test_the_greedy_story(name, known_words):
    with models.load(name) as model:
        generation = model.generate("Once upon a time", max_new_tokens=300).run()
    assert generation.finish_reason == "stop", "the story ends by itself"
    text = "Once upon a time" + generation.text.rstrip()
    assert text.endswith((".", "!", '."', '!"')) and 60 <= len(text.split()) <= 200
    assert [w for w in words(text) if w not in known_words] == []
    sentences = [s for s in text.replace('"', "").split(". ") if s]
    assert all(s[0].isupper() for s in sentences)
