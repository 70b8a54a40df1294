"""A server's kernels leave a core to HTTP where that pays, and compute the same bits then."""

from types import SimpleNamespace

import numpy as np
import pytest

import models
from core.errors import OptionError
from core.installed.registry import default_registry
from core.plugins.backend import BackendOptions
from models import serve
from models.checkpoints.lazy import abstract
from models.engine.options import LoadOptions
from models.serving.link.cores import left_to_http

IDS = [[7], [(7 * i + 3) % 500 for i in range(9)], [(11 * i + 3) % 500 for i in range(70)]]


@pytest.mark.parametrize(("weights", "cores", "left"), [
    (1_066_112, 1, 0), (1_066_112, 2, 1), (1_066_112, 64, 1), (15_000_000, 2, 0),
    (15_000_000, 4, 1), (135_000_000, 4, 0), (135_000_000, 16, 1), (1_236_000_000, 16, 0)])
def test_a_core_is_left_where_kernels_are_soon_done(weights, cores, left):
    assert left_to_http(weights, cores) == left


def model(weights: int) -> SimpleNamespace:
    return SimpleNamespace(arrays={"w": abstract((weights,), np.dtype("f4"))})


def test_who_decides(monkeypatch, capsys):
    """A server leaves a core if the first backend has a use for it, and the user says nothing."""
    pytest.importorskip("cpu_numba")
    monkeypatch.setattr(serve, "cores", lambda: 2)
    registry = default_registry()

    def spare(weights=1_000_000, **options):
        return serve._spare(LoadOptions(**options), registry, model(weights))
    assert spare(backend="cpu_numba,cpu_numpy") == 1
    assert capsys.readouterr().err == (
        "cores: 1 of 2 compute, 1 is left to HTTP, since a token of 1.0 million weights is soon "
        "computed (--threads N decides instead)\n")
    assert spare(backend="cpu_numba", threads=2) is None
    assert spare(backend="cpu_numpy,cpu_numba") is None
    assert spare(backend="cpu_numba", weights=100_000_000) is None
    monkeypatch.setattr(serve, "cores", lambda: 1)
    assert spare(backend="cpu_numba") is None
    assert capsys.readouterr().err == ""


def test_spare_cores_change_no_bit():
    numba = pytest.importorskip("numba")
    pytest.importorskip("cpu_numba")
    all_cores, options = numba.get_num_threads(), LoadOptions(backend="cpu_numba,cpu_numpy")

    def logits(spare):
        registry = options.registry(spare=spare)
        registry.opened.clear()  # it is opened anew: Numba has one number of threads a process
        with models.load("stories-llama2", options, registry=registry) as model:
            return ([model.logits(ids).tobytes() for ids in IDS],
                    registry.backend("cpu_numba").threads)
    try:
        few, threads = logits(numba.config.NUMBA_DEFAULT_NUM_THREADS - 1 or None)
        assert threads == 1
        assert (few, all_cores) == logits(None)
    finally:
        numba.set_num_threads(all_cores)


def test_a_backend_says_whether_it_can_leave_cores():
    with pytest.raises(OptionError, match="--spare 0: expected a whole number, at least 1"):
        BackendOptions(spare=0)
    with pytest.raises(OptionError, match="cpu_numpy does not use --spare"):
        LoadOptions(backend="cpu_numpy").registry(spare=1)
