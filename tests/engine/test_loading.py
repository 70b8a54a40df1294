"""Loading is straight: each graph is declared once, and options that nobody knows are errors."""

import pytest

import models
from core.errors import OptionError
from models import Llama, LoadOptions


@pytest.fixture
def builds(monkeypatch):
    """Counts the graphs that the family declares, by their kind."""
    made = []
    real = Llama.build

    def build(self, config, weights, kind, **dtypes):
        made.append(kind)
        return real(self, config, weights, kind, **dtypes)
    monkeypatch.setattr(Llama, "build", build)
    return made


def test_two_graphs_until_the_first_token(builds):
    with models.load("stories-llama2", max_context=64) as model:
        model.generate("Once upon a time", max_new_tokens=3).run()
        assert [(k.head, k.sampling, k.loop) for k in builds] == [
            ("last", "argmax", True), ("last", "argmax", False)]
        model.generate("One day", max_new_tokens=3).run()  # another length: another plan, no graph
        assert len(builds) == 2


def test_options_are_one_object_with_overrides():
    options = LoadOptions(kv_dtype="f16", max_context=32)
    with models.load("stories-llama2", options, max_context=48) as model:
        assert model.session.max_context == 48 and model.session.kv_dtype.short == "f16"
        assert model.activations.short == "f32"
    with pytest.raises(OptionError, match="unknown load option contxt; expected backend, dtype"):
        models.load("stories-llama2", contxt=3)
    with pytest.raises(OptionError, match="a backend is named with backend="):
        models.load("stories-llama2", "cpu_numpy")
