"""A backend that can be used no longer ends a step, whichever place it has in the list."""

import pytest

import models
from core.errors import BackendError


@pytest.mark.parametrize("load", [models.load, models.load_engine])
def test_every_backend_is_asked(load, monkeypatch):
    pytest.importorskip("cpu_numba")
    with load("stories-llama2", backend="cpu_numpy,cpu_numba", max_context=64) as loaded:
        policy = (loaded.session if load is models.load else loaded.executor).policy
        monkeypatch.setattr(policy.registry.backend("cpu_numba"), "lost", "its threads are gone")
        with pytest.raises(BackendError, match="threads are gone"):
            found = loaded.generate([5, 6, 7])
            found.run()
