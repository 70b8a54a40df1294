"""A kernel that breaks a device is named; no other is accused of what the device says then."""

from types import SimpleNamespace

import pytest

from core.conformance import test_ops
from core.conformance.apart.devices import note_failure
from core.conformance.cases import matrix
from core.errors import BackendError
from core.installed.registry import Registry
from core.plugins.kernel import Kernel
from core.tensor.dtype import f32


@pytest.fixture
def broken(monkeypatch):
    """Return a registry whose first kernel of `add` breaks the device, as an illegal address of a
    GPU does: every later call fails."""
    registry, state = Registry(), {"dead": False}

    def fail():
        if state["dead"]:
            raise RuntimeError("an illegal memory access was encountered")

    def bind(a, b, out):
        def launch():
            state["dead"] = True
            fail()
        return launch
    allocator = registry.backend("cpu_numpy").allocator
    monkeypatch.setattr(allocator, "synchronize", fail)
    kernel = Kernel("add", "cpu_numpy", "bad", bind, {"A": (f32,)})
    registry.kernels("cpu_numpy", "add").insert(0, kernel)
    registry.sources[kernel] = "test"
    return registry


def test_a_working_device_is_not_lost():
    registry = Registry()
    assert registry.unavailable("cpu_numpy") is None
    assert not note_failure(registry, "x") and not registry.backend("cpu_numpy").lost


def test_only_the_kernel_that_broke_it_is_accused(broken, monkeypatch):
    monkeypatch.setattr(test_ops, "registry_of", lambda config: broken)
    config = SimpleNamespace(getoption={"--kernelyard-repeat": 2}.get)
    case = next(c for c in matrix(broken, "cpu_numpy") if c.op.name == "add" and c.example)
    with pytest.raises(pytest.fail.Exception) as failed:
        test_ops.test_matches_reference(case, lambda *pair: None, config)
    said = str(failed.value)
    assert "cpu_numpy:bad, " in said and "illegal memory access" in said
    assert "cpu_numpy:add" not in said
    with pytest.raises(BackendError, match=r"its device failed with RuntimeError: an illegal .*"
                                           r"It began with: .*add, cpu_numpy:bad, "):
        broken.backend("cpu_numpy")
