"""The suite's pytest plugin.

An entry point loads it wherever core is installed, since pytest does not read the conftest.py of a
package named with --pyargs early enough for its options. It imports core only when the suite itself
is collected.
"""

from __future__ import annotations

from pathlib import Path

import pytest

SUITE = "core.conformance.test_ops"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("kernelyard conformance")
    group.addoption("--backend", action="append", help="backend to test; may repeat (default: "
                    "every installed one that is available)")
    group.addoption("--gpu-report", type=Path, metavar="FILE", help="record device, sources and "
                    "outcomes of this run, to be committed")
    group.addoption("--large", action="store_true", help="the samples that need gigabytes, instead "
                    "of the others")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--gpu-report")
    if path is not None and not hasattr(config, "workerinput"):  # xdist's workers report to us
        config.pluginmanager.register(_Recorder(path), "kernelyard-gpu-report")


class _Recorder:
    """Feeds a GpuReport from the run's results, and writes it at the end."""

    def __init__(self, path: Path) -> None:
        from core.conformance.gpu_report import GpuReport
        self.path, self.report = path, GpuReport()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
            self.report.add(report.nodeid, report.outcome, dict(report.user_properties))

    def pytest_sessionfinish(self) -> None:
        from core.registry import default_registry
        self.report.write(self.path, default_registry())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__ != SUITE or "case" not in metafunc.fixturenames:
        return
    from core.conformance.cases import matrix
    from core.errors import BackendError
    from core.registry import default_registry
    registry = default_registry()
    named = metafunc.config.getoption("--backend")
    backends = named or [b for b in sorted(registry.specs) if registry.unavailable(b) is None]
    large = metafunc.config.getoption("--large")
    try:
        cases = [c for b in backends for c in matrix(registry, b, large=large)]
    except BackendError as error:
        raise pytest.UsageError(str(error)) from None
    metafunc.parametrize("case", cases, ids=[c.id for c in cases])
