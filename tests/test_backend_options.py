"""Options of backends: passed to those that take them, refused where nobody does."""

from importlib.metadata import EntryPoint, entry_points

import pytest
import toy_backend

import models
from core.backend import BackendOptions, BackendSpec
from core.errors import OptionError
from core.plugins import GROUP, Plugins
from core.registry import Registry, default_registry
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
    assert toy_backend.KERNELYARD_API == 1
    return make


def test_an_option_reaches_the_backend_that_takes_it(registry):
    assert registry().backend("toy").asked == 7
    made = registry(BackendOptions(device=1, threads=2))
    assert made.backend("toy").asked == 1


def test_an_option_that_nobody_takes_is_an_error(registry):
    made = registry(BackendOptions(device=1))
    made.check_options(["cpu_numpy", "toy"])
    with pytest.raises(OptionError, match=r"--device means nothing to cpu_numpy; installed .*toy"):
        made.check_options(["cpu_numpy"])
    with pytest.raises(OptionError, match="--allow-tf32 means nothing to cpu_numpy"):
        models.load("stories-llama2", allow_tf32=True)


@pytest.mark.parametrize("bad", [{"device": -1}, {"threads": 0}, {"threads": True}])
def test_values_that_no_backend_could_take(bad):
    with pytest.raises(OptionError, match="expected a whole number"):
        BackendOptions(**bad)


def test_commands_ask_about_every_backend_that_they_name(registry, monkeypatch):
    from argparse import Namespace

    from models import arguments
    monkeypatch.setattr(arguments, "default_registry", registry)
    args = Namespace(device=1, threads=None, allow_tf32=None)
    for uses in (["cpu_numpy", "toy"], ["cpu_numpy,toy", None], ["cpu_numpy", "attention=toy"], []):
        arguments.chosen_registry(args, *uses)
    with pytest.raises(OptionError, match="--device means nothing to cpu_numpy"):
        arguments.chosen_registry(args, "cpu_numpy", "layers.3.*:add=cpu_numpy")


def test_one_registry_for_each_set_of_options():
    assert default_registry() is default_registry(BackendOptions())
    assert default_registry(BackendOptions(device=1)) is not default_registry()
