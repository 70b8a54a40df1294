"""Whatever a kernel's function raises becomes one error that names the node and the kernel."""

import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

import core.runtime.run_op as door
from core import failures
from core.conformance.cases import matrix
from core.conformance.runner import run_case
from core.errors import AllocationError, KernelError, PluginError
from core.installed.registry import Registry
from core.ir.graph import Graph
from core.ir.op import OPS
from core.plan.plan import Plan, run_all
from core.plan.policy import KernelPolicy
from core.plan.weights import WeightStore
from core.plugins.kernel import Kernel
from core.runtime.run_op import run_kernel
from core.tensor.dtype import f32
from core.tensor.tensor import Tensor, TensorSpec

HERE = re.escape(__file__)
DTYPES = {"A": (f32,)}


def registry_with(bind, **hooks):
    registry = Registry()
    kernel = Kernel("add", "cpu_numpy", "bad", bind, DTYPES, **hooks)
    registry.kernels("cpu_numpy", "add").insert(0, kernel)
    registry.sources[kernel] = "test"
    return registry


def run(bind, **hooks):
    ones = np.ones((2, 3), np.float32)
    return run_kernel(OPS["add"], {"a": ones, "b": ones}, {}, backend="cpu_numpy",
                      registry=registry_with(bind, **hooks))


def right(a, b, out):
    return partial(np.add, a, b, out)


def fails(*args, **more):
    raise RuntimeError("no luck")


def raises(error):
    raise error


def exits(*args, **more):
    raise SystemExit(0)


def scratch(a, b, out, *, workspace):
    return partial(np.add, a, b, out)


PLACES = {
    "supports": ((right,), {"supports": fails}), "workspace": ((scratch,), {"workspace": fails}),
    "bind": ((lambda a, b, out: fails(),), {}), "launch": ((lambda a, b, out: fails,), {})}


@pytest.mark.parametrize("place", PLACES)
def test_an_exception_is_named(place):
    (bind,), hooks = PLACES[place]
    line = fails.__code__.co_firstlineno + 1
    with pytest.raises(KernelError, match=(
            rf"^add, cpu_numpy:bad, T=2, D=3, A=f32: {place} raised RuntimeError: no luck, at "
            rf"{HERE}:{line}$")) as caught:
        run(bind, **hooks)
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("hooks", [{}, {"supports": exits}])
def test_system_exit_is_a_failure(hooks):
    with pytest.raises(KernelError, match=r"raised SystemExit: 0, at "):
        run(right if hooks else lambda a, b, out: exits, **hooks)


@pytest.mark.parametrize(("bind", "hooks", "said"), [
    (lambda a, b, out: None, {}, f"bind returned None, expected a callable.*{HERE}"),
    (lambda a, b, out: 3, {}, "bind returned 3, expected a callable"),
    (right, {"supports": lambda call: False}, r"supports\(\) returned False, expected None or"),
    (scratch, {"workspace": lambda call: (8,)}, r"workspace\(\) returned \(8,\), expected a Tens")])
def test_a_result_of_a_wrong_type_is_named(bind, hooks, said):
    with pytest.raises(KernelError, match=rf"^add, cpu_numpy:bad, T=2, D=3, A=f32: {said}"):
        run(bind, **hooks)


@pytest.mark.parametrize(("hook", "said"), [("packs", "packs raised RuntimeError: no luck"),
                                            ("prepare", "prepare raised RuntimeError: no luck"),
                                            ("type", r"packs\(\) returned \[\], expected a Tens")])
def test_prepacking_is_named(hook, said):
    hooks = {"packs": lambda call: {"weight": TensorSpec((4,), f32)}, "prepare": fails}
    hooks |= {"packs": {"packs": fails}, "type": {"packs": lambda call: []}}.get(hook, {})
    registry = Registry()
    bad = Kernel("linear", "cpu_numpy", "bad", lambda x, weight, bias, out: fails,
                 dict.fromkeys("AWO", (f32,)), **hooks)
    registry.sources[bad] = "test"
    registry.kernels("cpu_numpy", "linear").insert(0, bad)
    ones = np.ones((2, 3), np.float32)
    with pytest.raises(KernelError, match=rf"^linear, cpu_numpy:bad, T=2, .*{said}"):
        run_kernel(OPS["linear"], {"x": ones, "weight": ones, "bias": None}, {},
                   backend="cpu_numpy", registry=registry)


@pytest.mark.parametrize("error", [KeyboardInterrupt, AllocationError("cpu: 3 bytes")])
def test_what_is_nobodys_fault_keeps_its_type(error):
    def stop():
        raise error
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        run(lambda a, b, out: stop)


def test_a_line_outside_of_the_plugin_falls_back_to_the_kernel():
    with pytest.raises(KernelError, match=rf"launch raised .*, at {HERE}:"):
        run(lambda a, b, out: partial(np.add, a, b, np.zeros((9, 9), np.float32)))


def plan_of_three(launches):
    graph = Graph("three")
    value = graph.input("x", TensorSpec((2, 3), f32))
    for i in range(3):
        value = graph.add("add", value, value, name=f"node{i}")
    graph.output("y", value)
    left = iter(launches)
    registry = registry_with(lambda a, b, out: next(left))
    allocator = registry.backend("cpu_numpy").allocator
    return Plan(graph, KernelPolicy.of(registry, "cpu_numpy"), WeightStore({}),
                {"x": Tensor.from_numpy(np.ones((2, 3), np.float32), allocator, f32)})


@pytest.mark.parametrize("walk", [False, True])
def test_the_node_of_a_step_is_found_afterwards(walk):
    plan = plan_of_three([int, fails, int])
    with pytest.raises(KernelError, match=r"^node1 \(add\), cpu_numpy:bad, T=2"):
        if walk:
            for _, launch in plan.walk():
                launch()
        else:
            plan.run()
    plan_of_three([int, int, int]).run()


def test_a_step_calls_the_launches_themselves():
    """Naming costs a step nothing: no launch is wrapped."""
    launches = [lambda: None for _ in range(3)]
    every = plan_of_three(launches)._run
    assert every.func is run_all and every.args[0] == launches


def test_a_captured_step_names_the_step():
    with pytest.raises(KernelError, match=r"the captured step of 40 kernels on gpu raised RuntimeEr"
                       r"ror: no luck; --isolate runs its kernels one by one"):
        failures.captured(fails, 40, "gpu")()
    for error in (KeyboardInterrupt, KernelError("named")):
        def stop(error=error):
            raise error
        with pytest.raises((KeyboardInterrupt, KernelError)) as caught:
            failures.captured(stop, 40, "gpu")()
        assert "captured" not in str(caught.value)


class Unreadable(Exception):
    def __str__(self):
        raise SystemExit(0)

    __repr__ = __str__


def yields():
    yield


async def later():
    pass


@pytest.mark.parametrize(("bind", "said"), [
    (lambda a, b, out: raises(Unreadable()), r"bind raised Unreadable: \(it has no text\), at"),
    (lambda a, b, out: Unreadable(), "bind returned a Unreadable, expected a callable"),
    (lambda a, b, out: yields, "bind returned <function yields .*which computes nothing"),
    (lambda a, b, out: later, "bind returned <function later .*which computes nothing")],
    ids=["raises", "returns", "yields", "async"])
def test_what_cannot_be_read_or_run_is_named(bind, said):
    with pytest.raises(KernelError, match=f"^add, cpu_numpy:bad, .*{said}"):
        run(bind)


def test_conformance_takes_it_as_a_broken_rule():
    registry = registry_with(lambda a, b, out: exits)
    kernel = registry.kernels("cpu_numpy", "add")[0]
    case = next(c for c in matrix(registry, "cpu_numpy") if c.op.name == "add" and c.example)
    outcome = run_case(case, kernel, registry, case.expected)
    assert not outcome.ok and "launch raised SystemExit: 0" in str(outcome)


def test_run_op_and_its_exit_code(monkeypatch):
    from models.cli.command import command
    monkeypatch.setattr(door, "default_registry", lambda: registry_with(lambda a, b, out: fails))
    ones = np.ones((2, 3), np.float32)
    with pytest.raises(KernelError, match=r"^add, cpu_numpy:bad"):
        door.run_op("add", ones, ones)
    assert command(lambda: door.run_op("add", ones, ones))() == 3
    assert issubclass(KernelError, PluginError)


def test_the_distribution_is_that_of_the_entry_point():
    bind = SimpleNamespace(__module__="cpu_numpy.kernels.basic")
    assert failures._distribution(failures._root(SimpleNamespace(bind=bind))).startswith(
        "kernelyard-cpu-numpy 0.")
    assert failures._distribution("nowhere") == ""
