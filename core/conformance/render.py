"""Renders a Report as text and as a Markdown support matrix, and compares two matrices."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from core.conformance.cases import cells, dtype_id, examples_of
from core.conformance.report import Counts, Report
from core.ir.op import OPS

MEASURED = "## Measured"  #: from here on a matrix holds what varies by machine
NONE = "—"


def status(cell: Counts | None, expected: int | None) -> str:
    """Describe one cell in words. `expected` cases make it whole; None where the op is not known
    here.

    Only what passed counts as a pass: refused cases and cases not run are named.
    """
    if cell is None:
        return "not run"
    run = cell.passed + cell.failed + cell.known + cell.skipped
    if not cell.offered:
        return NONE
    total = max(run, expected or 0)
    if cell.failed:
        return f"**FAIL** {cell.failed} of {total}"
    rest = [f"{count} {what}" for count, what in (
        (cell.known, "known failure" + "s" * (cell.known > 1)), (cell.skipped, "refused"),
        (total - run, "not yet run")) if count]
    if not cell.passed:
        return ", ".join(rest) or "not run"
    word = "pass by own tolerance" if cell.own else "pass"
    return f"{word}, {cell.passed} of {total} ({', '.join(rest)})" if rest else word


def rows(report: Report, *, large: bool = False,
         ) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Return (op, dtypes, [(status, share of the budget)] by backend) for every cell that was
    run."""
    for op in list(dict.fromkeys([*OPS, *(o for ops in report.matrix.values() for o in ops)])):
        by_backend = [report.matrix[b].get(op, {}) for b in report.backends]
        expected = {dtype_id(d): len(examples_of(OPS[op], d, large=large))
                    for d in cells(OPS[op])} if op in OPS and not report.calls else {}
        found = dict.fromkeys([*expected, *(d for cs in by_backend for d in cs)])
        for dtypes in found:
            if not any(dtypes in cs for cs in by_backend):
                continue
            row = []
            for cs in by_backend:
                cell = cs.get(dtypes)
                text = (NONE if cell is None and op not in OPS  # an op that it cannot know
                        else status(cell, expected.get(dtypes)))
                row.append((text, _used(cell) if cell and cell.passed + cell.failed else ""))
            yield op, dtypes, row


def text(report: Report, *, large: bool = False) -> str:
    """Render the report backend by backend, for a terminal."""
    lines = []
    for i, backend in enumerate(report.backends):
        lines += [f"{backend}: {report.devices.get(backend, '')}",
                  f"  {'op':<27}{'dtypes':<24}{'status':<46}budget used"]
        lines += [f"  {op:<27}{dtypes:<24}{row[i][0]:<46}{row[i][1]}"
                  for op, dtypes, row in rows(report, large=large)]
        lines += [f"  property {name}: {status(c, None)}, {c.passed} kernels and dtypes"
                  for name, c in sorted(report.properties.get(backend, {}).items())]
    return "\n".join([*lines, *_remarks(report)])


def summary(report: Report, *, large: bool = False) -> str:
    """Render one line a backend, then everything that is neither a pass nor an absent kernel."""
    lines = []
    for i, backend in enumerate(report.backends):
        if not report.matrix[backend]:
            lines.append(f"{backend}: not run")
            continue
        found = [(op, dtypes, row[i][0]) for op, dtypes, row in rows(report, large=large)]
        passed = sum(s == "pass" for _, _, s in found)
        absent = sum(s == NONE for _, _, s in found)
        lines.append(f"{backend}: {passed} cells pass, {absent} have no kernel, "
                     f"{len(found) - passed - absent} other")
        lines += [f"  {op} {dtypes}: {s}" for op, dtypes, s in found if s not in ("pass", NONE)]
    return "\n".join([*lines, *_remarks(report)])


def markdown(report: Report, command: str) -> str:
    """Render the support matrix. Everything after `## Measured` may differ from machine to
    machine."""
    backends = report.backends
    head = ["# Support matrix", "",
            f"Generated, not edited: `{command}`.", "",
            "Each cell is an op with dtypes on a backend, held to the op's float64 definition on "
            "every example.", "`pass`: every example passed. Examples that every kernel refuses, "
            f"or that were not run, are counted\nbeside it. `{NONE}`: no kernel for these dtypes. "
            f"A check of this page compares all that stands above\n`{MEASURED}`; what is below "
            "varies by machine.", ""]
    table = _table(["op", "dtypes", *backends],
                   [[op, dtypes, *(s for s, _ in row)] for op, dtypes, row in rows(report)])
    names = sorted({n for b in backends for n in report.properties.get(b, {})})
    by_backend = [[report.properties.get(b, {}).get(n) for b in backends] for n in names]
    properties = _table(["property", *backends], [
        [name, *(status(c, None) if c else "not yet run" for c in row)]
        for name, row in zip(names, by_backend, strict=True)])
    tolerances = _table(["op", "tolerance"], [[op, str(OPS[op].tolerance)] for op in dict.fromkeys(
        op for op, _, _ in rows(report)) if op in OPS])
    used = _table(["op", "dtypes", *backends],
                  [[op, dtypes, *(u or NONE for _, u in row)] for op, dtypes, row in rows(report)
                   if any(u for _, u in row)])
    parts = [*head, "## Ops", "", *table, "", "## Properties", "", *properties, "",
             "## Tolerances", "", *tolerances, "", *_bullets(_remarks(report)),
             MEASURED, "", *(f"- {b}: {report.devices.get(b, 'unknown device')}" for b in backends),
             "", "### Worst share of the op's budget", "", *used, "", *_speeds(report)]
    return "\n".join(parts).rstrip() + "\n"


def differences(old: str, new: str) -> list[str]:
    """Return the lines that differ above `## Measured`: statuses, properties, tolerances,
    remarks."""
    a, b = (t.partition(f"\n{MEASURED}")[0].splitlines() for t in (old, new))
    return [line for line in difflib.unified_diff(a, b, "written", "now", lineterm="", n=0)
            if not re.match(r"@@|---|\+\+\+", line)]


def _used(cell: Counts) -> str:
    return "∞" if cell.budget_used is None else f"{cell.budget_used:.2f}"


def _remarks(report: Report) -> list[str]:
    """Return the remarks under the matrix: kernels' own tolerances, known failures, refusals.

    Sorted, so that the order in which tests ran does not show.
    """
    lines = [f"own tolerance of {kernel}: {t}" for b in report.backends
             for kernel, t in sorted(report.own_tolerances.get(b, {}).items())]
    lines += [f"known failure {test}: {why}" for b in report.backends
              for test, why in sorted(report.known_failures.get(b, {}).items())]
    lines += [f"{b}: not run since these sources changed: {', '.join(files)}"
              for b, files in sorted(report.unverified.items()) if files and report.matrix[b]]
    lines += [f"{b} {op} {dtypes} refused: {reason}" for b in report.backends
              for op, found in sorted(report.matrix[b].items())
              for dtypes, cell in sorted(found.items())
              if cell.offered for reason in sorted(cell.reasons)]
    lines += [f"property {name} refused: {reason}" for b in report.backends
              for name, cell in sorted(report.properties.get(b, {}).items())
              for reason in sorted(cell.reasons)]
    return lines


def _bullets(lines: list[str]) -> list[str]:
    return ["## Remarks", "", *(f"- {line}" for line in lines), ""] if lines else []


def _speeds(report: Report) -> list[str]:
    """Times of ops where the run took them, and of whole models where a report has them."""
    ops = [[op, dtypes, b, c.speed["sample"], c.speed["kernel"].partition(":")[2],
            f"{c.speed['seconds'] * 1e6:.1f}",
            f"{c.speed['nbytes'] / c.speed['seconds'] / 1e9:.1f}"]
           for b in report.backends for op, found in report.matrix[b].items()
           for dtypes, c in found.items() if c.speed is not None]
    models = [[s["shape"], s["backend"], s.get("quantize") or s["stored"],
               f"{s['prompt']}", f"{s['prefill_tokens_per_s']:.0f}",
               f"{s['decode_tokens_per_s']:.0f}", s["ledger"], s["verdict"]]
              for s in report.speeds if s.get("ok")]
    lines = []
    if ops:
        lines += ["### Speed of the chosen kernel, at the example that moves most bytes",
                  "", "GB/s counts the least bytes that must move; small examples stay in caches.",
                  "", *_table(["op", "dtypes", "backend", "example", "kernel", "µs", "GB/s"],
                              ops), ""]
    if models:
        lines += ["### Whole models, by `python -m models.bench`", "",
                  *_table(["shape", "backend", "weights", "prompt", "prefill tokens/s",
                           "decode tokens/s", "ledger", "checked"], models), ""]
    return lines


def _table(head: list[str], lines: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in
            [head, ["---"] * len(head), *([c.replace("|", "\\|") for c in row] for row in lines)]]
