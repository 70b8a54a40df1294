"""Listens to a run of the suite and, at its end, writes, compares and shows what it found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.conformance.options import flag

BAD_INPUT = 2  # as every command of kernelyard exits


class Recorder:
    """Feeds a Report from the run's results; writes, compares and shows it at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self.config, self.results, self.deselected = config, [], False  # type: ignore[var-annotated]
        self.lines: list[str] = []
        self.asked = any(config.getoption(flag(o)) for o in (
            "report", "gpu-report", "include", "expect", "write-lock"))

    def pytest_deselected(self) -> None:
        self.deselected = True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
            self.results.append(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session,
                             exitstatus: int | pytest.ExitCode) -> None:
        if exitstatus == pytest.ExitCode.USAGE_ERROR:
            return  # nothing ran that a report could tell of
        properties = [dict(r.user_properties) for r in self.results]
        if not self.asked and not any(k.startswith("kernelyard-") for p in properties for k in p):
            return
        from core.errors import KernelyardError
        try:
            self._finish(session, properties)
        except (KernelyardError, OSError) as error:
            self._fail(session, f"error: {error}", BAD_INPUT)

    def _finish(self, session: pytest.Session, properties: list[dict[str, Any]]) -> None:
        def option(name: str) -> Any:  # noqa: ANN401 - by the option
            return self.config.getoption(flag(name))
        from core.conformance import render
        from core.conformance.plugin import registry_of
        from core.conformance.report import Report
        from core.files import write_whole
        registry, report = registry_of(self.config), Report()
        report.calls = option("calls") is not None
        large = option("large")
        for result, found in zip(self.results, properties, strict=True):
            why = getattr(result, "wasxfail", None)
            known = why is not None and result.outcome == "skipped"
            report.add(result.nodeid, "known" if known else result.outcome, found, why or "")
        report.describe(registry)
        for path in filter(None, (*option("report"), option("gpu-report"))):
            if path.suffix == ".json":
                report.write_json(path, registry)
        if option("write-lock"):
            from core.conformance.rules.lock import write_lock
            if self.deselected or large or option("op") or option("dtype"):
                return self._fail(session, "no lock was written: it needs the verdicts of the "
                                  "whole suite, and parts of it were left out")
            write_lock(option("write-lock"), report, registry)
        for path in option("include"):
            report.include(path)
        included = "".join(f"--include {p} " for p in option("include"))
        page = render.markdown(report, f"kernelyard conform {included}--report FILE.md")
        for path in option("report"):
            if path.suffix != ".json":
                write_whole(path, page if path.suffix == ".md" else
                            render.text(report, large=large) + "\n")
        verbose = self.config.get_verbosity() > 0 or bool(option("backend"))
        show = render.text if verbose and self.config.get_verbosity() >= 0 else render.summary
        self.lines += show(report, large=large).splitlines()
        if option("expect") is not None:
            self._compare(session, option("expect"), page)

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
