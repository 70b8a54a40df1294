"""The contract may grow and breaks nobody: versions, attributes with defaults, clashes, guests."""

import json
from pathlib import Path

import numpy as np
import pytest
from plugin_site import install, python

from core import API_VERSION, Attr, KernelSet, Op, Tolerance
from core.errors import PluginError
from core.installed.loader import Plugins, served_version
from core.installed.registry import Registry
from core.ir.op import OPS
from core.plugins.kernel import check_kernel
from core.runtime.run_op import run_kernel

API1 = Path(__file__).parents[1] / "support" / "api1_example" / "v1.py"


@pytest.mark.parametrize(("stated", "served"), [
    (1, 1), (2, 2), ((1, 2), 2), ((1, 9), 2), ((2, 5), 2)])
def test_the_newest_version_of_both_sides_is_served(stated, served):
    assert API_VERSION == 2 and served_version("p", stated) == served


@pytest.mark.parametrize("stated", [None, 0, 3, (3, 4), "2", (2,), True, (1.0, 2.0)])
def test_other_versions_are_refused(stated):
    with pytest.raises(PluginError, match=r"states KERNELYARD_API = .*(serves 1 to 2|expected)"):
        served_version("p", stated)


def test_a_plugin_of_api_1_passes_conformance_and_runs(tmp_path):
    site = install(tmp_path / "site", "v1", "v1", API1.read_text())
    suite = python(site, "-m", "models.conform", "-q", "--backend", "v1")
    assert "failed" not in suite.stdout and " passed" in suite.stdout
    (tmp_path / "work/m.v1").write_text("stories-llama2")
    run = python(site, "-m", "models.run", "--model", "m.v1", "--backend", "v1,cpu_numpy",
                 "--check", "reference", "--max-new-tokens", "3", "--explain")
    assert "v1:three_linear" in run.stderr and "v1:rms_norm" in run.stderr


class Scaled(Op):
    """out = x * factor + shift, with an optional bias."""

    name = "test_scaled"
    signature = "x A[T,D], bias B[D]? -> out A[T,D]"
    attributes = {"factor": Attr(float), "shift": Attr(float, 0.0)}  # noqa: RUF012
    dtype_cases = ({"A": "f32", "B": "f32"},)
    tolerance = Tolerance(1, 0.5, "one product")

    def reference(self, x, bias, *, factor, shift):
        return x * factor + shift + (0 if bias is None else bias)

    def examples(self):
        return []

    def error_examples(self):
        return []


@pytest.fixture
def scaled():
    OPS["test_scaled"] = Scaled()
    yield OPS["test_scaled"]
    del OPS["test_scaled"]


def registry_with(kernels):
    registry = Registry(Plugins())
    registry.backend("cpu_numpy")
    registry.kernels("cpu_numpy")
    for kernel in kernels:
        check_kernel(kernel)
        registry._kernels["cpu_numpy"].setdefault(kernel.op, []).append(kernel)
        registry.sources[kernel] = "test 1.0"
    return registry


def test_a_kernel_may_leave_out_what_has_a_default(scaled):
    """The day an op gains `shift` and `bias`, a kernel that knows neither goes on."""
    kernels = KernelSet("cpu_numpy")

    @kernels.implements("test_scaled", dtypes={"A": "f32"})
    def old(x, out, *, factor):
        return lambda: np.multiply(x, np.float32(factor), out=out)
    registry = registry_with(kernels)
    x = np.ones((2, 3), np.float32)

    def run(bias=None, **attrs):
        return run_kernel(scaled, {"x": x, "bias": bias}, {"factor": 3.0, **attrs},
                          backend="cpu_numpy", registry=registry)[0]
    assert (run() == 3).all() and (run(shift=0.0) == 3).all()
    with pytest.raises(Exception, match=r"cpu_numpy:old: takes no `shift`"):
        run(shift=1.0)
    with pytest.raises(Exception, match=r"cpu_numpy:old: takes no `bias`"):
        run(bias=np.ones(3, np.float32))


@pytest.mark.parametrize("bind", [
    lambda x, bias, out: None,                        # factor has no default
    lambda bias, out, *, factor: None,                # x is not optional
    lambda x, bias, out, *, factor, speed: None,      # the op has no speed
    lambda out, x, *, factor: None,                   # another order
])
def test_a_kernel_may_not_leave_out_the_rest(scaled, bind):
    kernels = KernelSet("cpu_numpy")
    kernels.implements("test_scaled", dtypes={"A": "f32", "B": "f32"}, name="k")(bind)
    with pytest.raises(PluginError, match=r"declares \(x, bias=None, out, \*, factor, shift=0.0\)"):
        check_kernel(next(iter(kernels)))


@pytest.mark.parametrize(("hook", "wrong"), [
    ({"supports": lambda call: ""}, r"supports\(\) returned '', expected None or the reason"),
    ({"machine": lambda: ""}, r"machine\(\) returned '', expected None or the reason"),
    ({"machine": lambda: 1 / 0}, r"cpu_numpy:k, .*: machine raised ZeroDivisionError"),
    ({"machine": lambda call: None}, r"cpu_numpy:k, .*: machine raised TypeError")])
def test_refusing_needs_a_reason(scaled, hook, wrong):
    kernels = KernelSet("cpu_numpy")
    kernels.implements("test_scaled", dtypes={"A": "f32"}, name="k", **hook)(
        lambda x, out, *, factor: print)
    registry = registry_with(kernels)
    with pytest.raises(PluginError, match=wrong):
        run_kernel(scaled, {"x": np.ones((1, 1), np.float32), "bias": None}, {"factor": 1.0},
                   backend="cpu_numpy", registry=registry)


OP = '''
from core import Example, ErrorExample, KernelSet, Op, Tolerance, TensorSpec, errors, f32, hookimpl
KERNELYARD_API = 2
kernels = KernelSet("cpu_numpy")


class Mine(Op):
    """Adds one, or two."""
    name = NAME
    signature = "x A[T] -> out A[T]"
    dtype_cases = ({"A": "f32"},)
    tolerance = Tolerance(1, 0.5, "one sum")

    def reference(self, x):
        return x + VALUE

    def examples(self):
        return [Example("T3", lambda r: {"x": r.normal(3)}, {})]

    def error_examples(self):
        return [ErrorExample({"x": TensorSpec((2, 2), f32)}, {}, errors.ShapeError, "1 axes")]


@kernels.implements(NAME, dtypes={"A": "f32"}, name="add_VALUE")
def kernel(x, out):
    def launch():
        out[:] = x + VALUE
    return launch


@hookimpl
def register_ops(register):
    register(Mine())


@hookimpl
def register_kernels(backend, register):
    if backend == "cpu_numpy":
        for one in kernels:
            register(one)


@hookimpl
def register_models(register):
    register("LlamaForCausalLM", object())
'''


def test_a_clash_drops_one_thing_and_is_loud(tmp_path):
    """Two plugins define one op, and one of them an architecture that core has."""
    site = tmp_path / "site"
    for distribution, value in (("b-first", 1), ("c-second", 2)):
        install(site, distribution, f"p{value}", OP.replace("NAME", "'shared_op'").replace(
            "VALUE", str(value)))
    code = ("import core, numpy as np; "
            "print(core.run_op('shared_op', np.zeros(2, 'f4')))")
    assert python(site, "-c", code).stdout.strip() == "[1. 1.]", "by name of the distribution"
    listed = python(site, "-m", "models.run", "--list-backends").stdout
    assert "left out: p2 (from c-second 1.0): op 'shared_op' is already defined" in listed
    assert "'LlamaForCausalLM' is already registered by kernelyard" in listed
    assert "shared_op: add_1 (b-first 1.0)" in listed and "add_2 (" not in listed
    doctor = json.loads(python(site, "-m", "models.doctor", "--json", code=1).stdout)
    states = {(p["name"], p["state"]) for p in doctor["plugins"]}
    assert {("p1", "loaded"), ("p2", "loaded"), ("p2", "left out")} <= states
    run = python(site, "-m", "models.run", "--max-new-tokens", "2")
    assert "left out: p2" in run.stderr and run.stdout.startswith("Once upon a time")


def test_a_namespace_is_the_plugins_name(tmp_path):
    site = tmp_path / "site"
    install(site, "b-first", "p1", OP.replace("NAME", "'p1.shared_op'").replace("VALUE", "1"))
    install(site, "c-second", "p2", OP.replace("NAME", "'p2.shared_op'").replace("VALUE", "2"))
    install(site, "d-third", "p3", OP.replace("NAME", "'p1.other'").replace("VALUE", "3"))
    code = ("import core, numpy as np; x = np.zeros(1, 'f4'); "
            "print(*core.run_op('p1.shared_op', x), *core.run_op('p2.shared_op', x))")
    assert python(site, "-c", code).stdout.strip() == "1.0 2.0"
    listed = python(site, "-m", "models.run", "--list-backends").stdout
    assert "broken plugin p3 (from d-third 1.0)" in listed and "'p3.other'" in listed
    suite = python(site, "-m", "models.conform", "-q", "--backend", "cpu_numpy",
                   "--op", "p1.shared_op")
    assert " passed" in suite.stdout


GUEST = '''
import numpy as np
from core import KernelSet, hookimpl
KERNELYARD_API = 2
kernels = KernelSet("cpu_numpy")


@kernels.implements("rms_norm", dtypes={"A": "f32", "W": "f32"}, name="guest_rms", priority=9)
def guest_rms(x, weight, out, *, eps):
    def launch():
        np.multiply(x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps), weight, out=out)
    return launch


@hookimpl
def register_kernels(backend, register):
    if backend == "cpu_numpy":
        for kernel in kernels:
            register(kernel)
'''


def test_a_guest_kernel_is_shown(tmp_path):
    site = install(tmp_path / "site", "norm-guest", "norm_guest", GUEST)
    run = python(site, "-m", "models.run", "--no-fusion", "--max-new-tokens", "2", "--explain")
    assert "guest kernel: cpu_numpy:guest_rms, from norm-guest 1.0" in run.stderr
    assert "(guest: norm-guest 1.0)" in run.stderr
    assert "rms_norm: guest_rms (norm-guest 1.0)" in python(
        site, "-m", "models.run", "--list-backends").stdout
    found = json.loads(python(site, "-m", "models.run", "--no-fusion", "--max-new-tokens", "2",
                              "--json", "--explain").stdout)
    guests = {e["kernel"] for e in found["ledger"]["entries"] if e["guest"]}
    assert guests == {"cpu_numpy:guest_rms"}
