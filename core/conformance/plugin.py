"""The suite's pytest plugin.

An entry point loads it wherever core is installed, since pytest does not read the conftest.py of a
package named with --pyargs early enough for its options. It imports core only when the suite itself
is collected, or a report is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from core.conformance.cases import Subset
    from core.registry import Registry

BAD_INPUT = 2  # as every command of kernelyard exits
SUITES = ("core.conformance.test_ops", "core.conformance.test_properties")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("kernelyard conformance")
    group.addoption("--backend", action="append", metavar="NAME[,NAME]", help="backends to test; "
                    "may repeat (default: every installed one that is available)")
    group.addoption("--op", action="append", default=[], metavar="NAME[,NAME]",
                    help="only these ops; may repeat")
    group.addoption("--dtype", action="append", default=[], metavar="NAME[,NAME]", help="only "
                    "cells in which these dtypes occur, or of these ids (float32.W=bf16)")
    group.addoption("--large", action="store_true", help="the samples that need gigabytes, instead "
                    "of the others")
    group.addoption("--time", action="store_true", help="also time the kernel that a plan chooses")
    group.addoption("--report", action="append", default=[], type=Path, metavar="FILE",
                    help="write what was found: .json, .md (support matrix) or .txt; may repeat")
    group.addoption("--include", action="append", default=[], type=Path, metavar="FILE.json",
                    help="put another run's report, of backends not tested here, into this one's")
    group.addoption("--expect", type=Path, metavar="FILE.md", help="fail if this run's support "
                    "matrix has other statuses, tolerances or remarks than FILE")
    group.addoption("--write-lock", type=Path, metavar="FILE", help="write a lock file of every "
                    "kernel tested, with its verdict, for models.run --lock")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # xdist's workers report to us
        return
    for path in config.getoption("--report"):
        if path.suffix not in (".json", ".md", ".txt"):
            raise pytest.UsageError(f"--report {path}: expected a name that ends with .json, "
                                    ".md or .txt")
    config.pluginmanager.register(_Recorder(config), "kernelyard-report")


class _Recorder:
    """Feeds a Report from the run's results; writes, compares and shows it at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self.config, self.results, self.deselected = config, [], False  # type: ignore[var-annotated]
        self.lines: list[str] = []
        self.asked = any(config.getoption(o) for o in (
            "--report", "--include", "--expect", "--write-lock"))

    def pytest_deselected(self) -> None:
        self.deselected = True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
            self.results.append(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        properties = [dict(r.user_properties) for r in self.results]
        if not self.asked and not any(k.startswith("kernelyard-") for p in properties for k in p):
            return
        from core.errors import KernelyardError
        try:
            self._finish(session, properties)
        except (KernelyardError, OSError) as error:
            self._fail(session, f"error: {error}", BAD_INPUT)

    def _finish(self, session: pytest.Session, properties: list[dict[str, Any]]) -> None:
        from core.conformance import render
        from core.conformance.report import Report, write_whole
        from core.registry import default_registry
        registry, report = default_registry(), Report()
        option, large = self.config.getoption, self.config.getoption("--large")
        for result, found in zip(self.results, properties, strict=True):
            why = getattr(result, "wasxfail", None)
            known = why is not None and result.outcome == "skipped"
            report.add(result.nodeid, "known" if known else result.outcome, found, why or "")
        report.describe(registry)
        for path in option("--report"):
            if path.suffix == ".json":
                report.write_json(path, registry)
        if option("--write-lock"):
            from core.lock import write_lock
            if self.deselected or large or option("--op") or option("--dtype"):
                return self._fail(session, "no lock was written: it needs the verdicts of the "
                                  "whole suite, and parts of it were left out")
            write_lock(option("--write-lock"), report, registry)
        for path in option("--include"):
            report.include(path)
        included = "".join(f"--include {p} " for p in option("--include"))
        page = render.markdown(report, "pytest --pyargs core.conformance "
                               f"{included}--report FILE.md")
        for path in option("--report"):
            if path.suffix != ".json":
                write_whole(path, page if path.suffix == ".md" else
                            render.text(report, large=large) + "\n")
        verbose = self.config.get_verbosity() > 0 or bool(self.config.getoption("--backend"))
        show = render.text if verbose and self.config.get_verbosity() >= 0 else render.summary
        self.lines += show(report, large=large).splitlines()
        if option("--expect") is not None:
            self._compare(session, option("--expect"), page)

    def _compare(self, session: pytest.Session, path: Path, page: str) -> None:
        from core.conformance.render import differences
        from core.errors import OptionError
        if not path.exists():
            raise OptionError(f"--expect {path}: there is no such file; write it with --report")
        changed = differences(path.read_text(), page)
        if changed:
            self._fail(session, "\n".join([f"{path} is stale: this run found", *changed,
                                           f"write it again with --report {path}"]))

    def _fail(self, session: pytest.Session, why: str, code: int = 1) -> None:
        self.lines += why.splitlines()
        session.exitstatus = session.exitstatus or code

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:  # noqa: ANN401 - pytest's own
        if self.lines:
            terminalreporter.section("kernelyard conformance")
            terminalreporter.write_line("\n".join(self.lines))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    name = next(iter({"case", "kernel", "op", "trial"} & set(metafunc.fixturenames)), None)
    if metafunc.module.__name__ not in SUITES or name is None:
        return
    from core.errors import KernelyardError
    try:
        tests = list(_tests(name, metafunc.config))
    except KernelyardError as error:
        pytest.exit(f"error: {error}", returncode=BAD_INPUT)
    if not tests:
        tests = [pytest.param(None, id="none", marks=pytest.mark.skip("nothing matches --op, "
                                                                      "--dtype and --backend"))]
    metafunc.parametrize(name, tests)


def _tests(kind: str, config: pytest.Config) -> Iterable[Any]:
    """Parameters with ids; known failures among them are expected to fail."""
    from core.conformance.cases import Subset
    from core.conformance.known import check_used, known_failures, reason_for
    from core.errors import OptionError
    from core.op import OPS
    from core.registry import default_registry, split_backends
    registry = default_registry()
    subset = Subset(frozenset(_split(config, "--op")), frozenset(_split(config, "--dtype")))
    subset.check()
    if kind == "op":
        for op in OPS.values():
            if not subset.ops or op.name in subset.ops:
                yield pytest.param(op, id=op.name)
        return
    named = config.getoption("--backend")
    backends = (split_backends(",".join(named)) if named else
                [b for b in sorted(registry.specs) if registry.unavailable(b) is None])
    if not backends:
        raise OptionError("no installed backend is available: pip install ./backends/cpu_numpy")
    for backend in backends:
        known = known_failures(registry, backend)
        if known and kind == "case":
            check_used(known, [id for k in ("case", "kernel", "trial") for large in (False, True)
                               for _, id in _all(k, registry, backend, Subset(), large)], backend)
        for test, id in _all(kind, registry, backend, subset, config.getoption("--large")):
            why = reason_for(id, known)
            marks = [] if why is None else [pytest.mark.xfail(reason=why, strict=True)]
            yield pytest.param(test, id=id, marks=marks)


def _all(kind: str, registry: Registry, backend: str, subset: Subset, large: bool,
         ) -> Iterable[tuple[Any, str]]:
    """Every test of one kind, with its id."""
    from core.conformance.cases import EVERYTHING, cases_of, matrix
    if kind == "case":
        yield from ((c, c.id) for c in matrix(registry, backend, large=large, subset=subset))
    elif not large:
        from core.conformance.trials import trials
        kernels = [k for k in registry.kernels(backend) if subset == EVERYTHING
                   or any(subset.has(c.op, c.dtypes) for c in cases_of(k))]
        if kind == "kernel":
            yield from ((k, f"{k.op}-{k.backend}-{k.name}") for k in kernels)
        else:
            yield from ((t, t.id) for k in kernels for t in trials(registry, k, subset))


def _split(config: pytest.Config, option: str) -> list[str]:
    return [name.strip() for text in config.getoption(option) for name in text.split(",")
            if name.strip()]
