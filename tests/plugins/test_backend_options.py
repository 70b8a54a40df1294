"""Options of backends: are passed to those that take them, and refused where nobody does."""

from importlib.metadata import EntryPoint, entry_points

import numpy as np
import pytest

import models
from core.errors import OptionError, PluginError
from core.installed.discovery import GROUP
from core.installed.loader import Plugins
from core.installed.registry import Registry, default_registry
from core.ir.tolerance import Tolerance
from core.plugins.backend import BackendOptions, BackendSpec
from core.plugins.kernel import KernelSet
from core.verify.crosscheck import CrossCheck
from cpu_numpy.backend import NumpyBackend


class Asked(NumpyBackend):
    def __init__(self, device: int = 7):
        super().__init__()
        self.asked = device


@pytest.fixture
def registry():
    """`toy` takes --device here, and says which it was given."""
    def make(options=None):
        made = Registry(Plugins([*entry_points(group=GROUP),
                                 EntryPoint("toy", "toy_backend", GROUP)]), options)
        made.specs["toy"] = BackendSpec("toy", "toy", f"{__name__}:Asked", "", options=("device",))
        return made
    return make


def test_an_option_reaches_the_backend_that_takes_it(registry):
    assert registry().backend("toy").asked == 7
    made = registry(BackendOptions(device=1, threads=2))
    assert made.backend("toy").asked == 1


def test_an_option_that_nobody_takes_is_an_error(registry):
    made = registry(BackendOptions(device=1))
    made.check_options(["cpu_numpy", "toy"])
    with pytest.raises(OptionError, match=r"cpu_numpy does not use --device; installed .*toy"):
        made.check_options(["cpu_numpy"])
    with pytest.raises(OptionError, match="cpu_numpy does not use --allow-tf32"):
        models.load("stories-llama2", allow_tf32=True)


@pytest.mark.parametrize("bad", [{"device": -1}, {"threads": 0}, {"threads": True}])
def test_values_that_no_backend_could_take(bad):
    with pytest.raises(OptionError, match="expected a whole number"):
        BackendOptions(**bad)


def test_commands_ask_about_every_backend_that_they_name(registry, monkeypatch):
    from models.engine import options
    monkeypatch.setattr(options, "default_registry", lambda given, choice: registry(given))

    def opened(backend, kernels=(), check=None):
        return options.LoadOptions(backend, kernels=kernels, device=1).registry(check)
    for asked in (["cpu_numpy", (), "toy"], ["cpu_numpy,toy"], ["cpu_numpy", ["attention=toy"]]):
        opened(*asked)
    with pytest.raises(OptionError, match="cpu_numpy does not use --device"):
        opened("cpu_numpy", ["layers.3.*:add=cpu_numpy"])


def test_one_registry_for_each_set_of_options():
    assert default_registry() is default_registry(BackendOptions())
    assert default_registry(BackendOptions(device=1)) is not default_registry()


def coarse(x, weight, bias, out):
    """Multiply inputs cut to 10 bits of mantissa, as TF32 has."""
    def cut(a):
        return (a.view(np.int32) & ~0x1FFF).view(np.float32)

    def launch():
        np.dot(cut(x), cut(weight).T, out=out)
    return launch


def with_coarse(registry, **declared):
    """Return `cpu_numpy` with that kernel before its own."""
    kernels = KernelSet("cpu_numpy")
    kernels.implements("linear", name="coarse", priority=9, option="allow_tf32", supports=lambda c:
                       None if c.inputs["bias"] is None else "takes no bias",
                       dtypes={"A": "f32", "W": "f32", "O": "f32"}, **declared)(coarse)
    registry.kernels("cpu_numpy", "linear").insert(0, *kernels)
    registry.sources[registry.kernels("cpu_numpy", "linear")[0]] = "this test"
    return registry


def test_a_kernel_may_wait_for_an_option():
    def ledger(**options):
        registry = with_coarse(Registry(options=BackendOptions(**options)))
        with models.load("stories-llama2", registry=registry) as model:
            return [e for e in model.ledger.entries if e.op == "linear"]
    assert all(("cpu_numpy:coarse", "needs --allow-tf32") in e.refused for e in ledger())
    assert all(e.kernel == "cpu_numpy:coarse" for e in ledger(allow_tf32=True))
    named = Registry()  # as the conformance suite does, to test it
    with models.load("stories-llama2", registry=with_coarse(named),
                     kernels=["linear=cpu_numpy:coarse"]) as model:
        assert {e.kernel for e in model.ledger.entries if e.op == "linear"} == {"cpu_numpy:coarse"}
    with pytest.raises(PluginError, match="option 'fast' is no field"):
        KernelSet("toy").implements("add", dtypes={"A": "f32"}, option="fast")


@pytest.mark.parametrize("own", [None, Tolerance(4, 2 * 2**13, "TF32's 10 bits")])
def test_a_check_judges_by_the_kernel_s_own_tolerance(own):
    registry = with_coarse(Registry(options=BackendOptions(allow_tf32=True)), tolerance=own)
    with models.load("stories-llama2", registry=registry) as model:
        check = CrossCheck(registry, ["reference"])
        with model.session.observed(check):
            model.generate("Once upon a time", max_new_tokens=3).run()
        assert check.tally.ok == (own is not None)
