"""Connects the suite to pytest, which loads it by name: `-p core.conformance.plugin`.

No entry point loads it: it would take part in every pytest run of the environment. All its options
begin with `--kernelyard-`; the command `kernelyard conform` has them under their short names.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

import pytest

from core.conformance.options import OPTIONS, flag
from core.conformance.recorder import Recorder
from core.output import escaped

if TYPE_CHECKING:
    from core.conformance.cases import Subset
    from core.installed.registry import Registry

GPU = "cuda"  #: the device that GPU backends name in their BackendSpec
#: options that are checked before anything is collected
EARLY = ("backend", "op", "dtype", "calls", "gpu-report", "only-plugins", "without-plugin")
#: options that are about the ops' own examples
WHOLE = ("large", "report", "gpu-report", "include", "expect", "write-lock")
#: modules of the suite, with the kinds of their tests' parameters
SUITES = {"core.conformance.test_ops": ("case", "kernel", "op"),
          "core.conformance.test_properties": ("property_case",),
          "core.conformance.test_families": ("family_case",),
          "core.conformance.test_plugin": ("plugin",),
          "core.conformance.test_quantize": ("quantizer",)}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("kernelyard conformance")
    for name, argument in OPTIONS.items():
        group.addoption(flag(name), **argument)


def pytest_configure(config: pytest.Config) -> None:
    from core.errors import OptionError
    from core.isolation import check_limit
    try:
        check_limit(config.getoption(flag("step-timeout")), config.getoption(flag("isolate")))
    except OptionError as error:
        raise _usage_error(str(error)) from None
    if config.getoption(flag("isolate")):  # in each of xdist's workers too
        from core.conformance.apart.isolated import Isolated
        config.pluginmanager.register(Isolated(config, SUITES), "kernelyard-isolated")
    if hasattr(config, "workerinput"):  # xdist's workers report to us
        return
    for path in config.getoption(flag("report")):
        if path.suffix not in (".json", ".md", ".txt"):
            raise _usage_error(f"--report {path}: expected a name that ends with .json, "
                                    ".md or .txt")
    if (path := config.getoption(flag("gpu-report"))) is not None and path.suffix != ".json":
        raise _usage_error(f"--gpu-report {path}: expected a name that ends with .json")
    if config.getoption(flag("repeat")) < 2:
        raise _usage_error(f"--repeat {config.getoption(flag('repeat'))}: expected at least 2 "
                                "runs, which are compared")
    clash = [o for o in WHOLE if config.getoption(flag(o))]
    if clash and config.getoption(flag("calls")) is not None:
        raise _usage_error(f"--{clash[0]} is about the ops' examples, and cannot be used with "
                                "a model's calls")
    config.pluginmanager.register(Recorder(config), "kernelyard-report")


def registry_of(config: pytest.Config) -> Registry:
    """Return the plugins that a run chose. Raises OptionError for an unknown one."""
    from core.installed.choice import PluginChoice
    from core.installed.registry import default_registry
    return default_registry(choice=PluginChoice.of(config.getoption(flag("only-plugins")),
                                                   config.getoption(flag("without-plugin"))))


@pytest.hookimpl(hookwrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterable[None]:
    """Ask the devices whether they still work after a test that failed."""
    from core.conformance.apart.devices import note_failure
    outcome: Any = yield
    if outcome.excinfo is not None and pyfuncitem.function.__module__ in SUITES:
        note_failure(registry_of(pyfuncitem.config), str(outcome.excinfo[1]))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    name = next((k for k in SUITES.get(metafunc.module.__name__, ())
                 if k in metafunc.fixturenames), None)
    if name is None:
        return
    tests = list(_tests(name, metafunc.config)) or [
        pytest.param(None, id="none", marks=pytest.mark.skip("nothing of this kind was asked for"))]
    metafunc.parametrize(name, tests)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Complain of options before anything is collected, in one line."""
    if any(session.config.getoption(flag(o)) for o in EARLY):
        from core.errors import KernelyardError
        try:
            large = session.config.getoption(flag("large"))
            if not list(_tests("case", session.config)) and not large:
                raise _usage_error("no cell of the matrix has both the --op and the --dtype "
                                        "that were asked for")
        except KernelyardError as error:
            raise _usage_error(str(error)) from None


def _tests(kind: str, config: pytest.Config) -> Iterable[Any]:
    """Parameters with ids; known failures among them are expected to fail."""
    from core.conformance.cases import Subset
    from core.conformance.known import check_used, known_failures, reason_for
    from core.ir.op import OPS
    registry = registry_of(config)
    subset = Subset(frozenset(_split(config, "op")), frozenset(_split(config, "dtype")))
    subset.check()
    if kind == "op":
        for op in OPS.values():
            if not subset.ops or op.name in subset.ops:
                yield pytest.param(op, id=op.name)
        return
    whole = subset == Subset() and config.getoption(flag("calls")) is None
    if kind == "plugin":
        named = _split(config, "backend")
        for entry in _plugins(registry) if whole else ():
            if not named or entry.name in named:
                yield pytest.param(entry, id=entry.name)
        return
    for backend in chosen_backends(registry, config.getoption(flag("backend")),
                                   gpu=config.getoption(flag("gpu-report")) is not None):
        if kind == "quantizer":
            if whole:
                yield pytest.param((registry, backend), id=backend)
            continue
        known = known_failures(registry, backend)
        if known and kind == "case":
            check_used(known, [id for k in ("case", "kernel", "property_case", "family_case")
                               for large in (False, True)
                               for _, id in _all(k, registry, backend, Subset(), large)], backend)
        for test, id in _asked(kind, registry, backend, subset, config):
            why = reason_for(id, known)
            marks = [] if why is None else [pytest.mark.xfail(reason=why, strict=True)]
            yield pytest.param(test, id=id, marks=marks)


def _plugins(registry: Registry) -> list[EntryPoint]:
    """Return the loaded plugins, but not the one that every other may import from."""
    from core.installed.choice import ALWAYS
    from core.installed.discovery import find_entries
    return [e for e in find_entries()[0]
            if e.name != ALWAYS and e.name in registry.plugins.distributions]


def chosen_backends(registry: Registry, named: list[str] | None, *, gpu: bool) -> list[str]:
    """Return the backends to test: those named, else the available ones; with `gpu`, only those of
    them that compute on a GPU. Raises OptionError if that leaves none."""
    from core.errors import OptionError
    from core.installed.registry import split_backends
    if named:
        backends = list(split_backends(",".join(named)))
    else:
        backends = [b for b in sorted(registry.specs) if registry.unavailable(b) is None]
    if not backends:
        raise OptionError("no installed backend is available; fix: pip install "
                          "./backends/cpu_numpy")
    if gpu and not (backends := [b for b in backends if registry.specs[b].device == GPU]):
        reasons = [f"{b}: {registry.unavailable(b) or 'was not named'}"
                   for b, spec in sorted(registry.specs.items()) if spec.device == GPU]
        raise OptionError("--gpu-report needs a backend that computes on a GPU; "
                          + ("; ".join(reasons) or "none is installed"))
    return backends


def _asked(kind: str, registry: Registry, backend: str, subset: Subset, config: pytest.Config,
           ) -> Iterable[tuple[Any, str]]:
    """Return the tests of one kind: those of a model's calls where a file of them is given."""
    path = config.getoption(flag("calls"))
    if path is None:
        yield from _all(kind, registry, backend, subset, config.getoption(flag("large")))
    elif kind == "case":
        from core.conformance.calls import call_cases, read_calls
        yield from ((c, c.id) for c in call_cases(read_calls(path), registry, backend, subset))


def tests_of(kind: str, config: pytest.Config) -> Iterable[tuple[str, Any]]:
    """Return the tests of one kind that a run has, by their ids."""
    return [(test.id, test.values[0]) for test in _tests(kind, config)]


def _all(kind: str, registry: Registry, backend: str, subset: Subset, large: bool,
         ) -> Iterable[tuple[Any, str]]:
    """Return every test of one kind, with its id."""
    from core.conformance.cases import EVERYTHING, cases_of, matrix
    if kind == "case":
        yield from ((c, c.id) for c in matrix(registry, backend, large=large, subset=subset))
    elif not large:
        from core.conformance.families import family_cases
        from core.conformance.trials import property_cases
        if kind == "family_case":
            yield from ((f, f.id) for f in family_cases(registry, backend, subset))
            return
        kernels = [k for k in registry.kernels(backend) if subset == EVERYTHING
                   or any(subset.has(c.op, c.dtypes) for c in cases_of(k))]
        if kind == "kernel":
            yield from ((k, f"{k.op}-{k.backend}-{k.name}") for k in kernels)
        else:
            yield from ((t, t.id) for k in kernels
                       for t in property_cases(registry, k, subset))


def _split(config: pytest.Config, option: str) -> list[str]:
    return [name.strip() for text in config.getoption(flag(option)) or ()
            for name in text.split(",")
            if name.strip()]


def _usage_error(message: str) -> pytest.UsageError:
    """Return pytest's error for options, with what a terminal would obey escaped."""
    return pytest.UsageError(escaped(message))
