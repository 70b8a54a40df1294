"""Runs the suite as an outsider: subsets, reports, known failures, own tolerances, refusals."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from example_backend import install

from core.conformance import render
from core.conformance.known import read
from core.conformance.report import Counts, Report
from core.errors import OptionError
from core.ir.op import OPS

ROOT = Path(__file__).parents[2]
COUNT = {name: sum(not e.large for e in op.examples()) for name, op in OPS.items()}
ADDS = COUNT["add"]

ADD = '''
@kernels.implements("add", dtypes={"A": "f32"}, batch_invariant=True)
def add(a, b, out):
    return partial(np.add, a, b, out)
'''
REFUSES = '''
@kernels.implements("swiglu", dtypes={"A": "f32"}, supports=lambda call: "needs a moon")
def swiglu(gate, up, out):
    raise AssertionError
'''
ROUGH = '''
@kernels.implements("softmax", dtypes={"A": "f32"},
                    tolerance=Tolerance(1e4, 1e4, "a table of exponentials"))
def softmax(x, out):
    def launch():
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        np.multiply(e / e.sum(axis=-1, keepdims=True), np.float32(1.0001), out=out)
    return launch
'''
WRONG = '''
@kernels.implements("rms_norm", dtypes={"A": "f32", "W": "f32"})
def rms_norm(x, weight, out, *, eps):
    def launch():
        square = np.mean(x * x, axis=-1, keepdims=True)
        np.divide(x, np.sqrt(square + np.float32(eps)), out=out)
        np.multiply(out, weight, out=out)
        out[square[:, 0] < 1e-3] = 0
    return launch
'''


@pytest.fixture
def suite(tmp_path):
    """Run the suite on an installed `example` backend; (exit code, output)."""
    def run(kernels, *args, known_failures="", backend="example"):
        site = install(tmp_path / "site", kernels, known_failures)
        path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-m", "models.conform", "--backend", backend, *args],
            cwd=tmp_path, text=True,
            env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=120)
        assert "INTERNALERROR" not in done.stdout, done.stdout
        return done.returncode, done.stdout
    return run


def lines(text, *words):
    return [line for line in text.splitlines() if all(w in line for w in words)]


def test_reports_of_a_part(suite, tmp_path):
    code, text = suite(ADD + ROUGH, "--op", "add,softmax", "--dtype", "f32", "--time",
                       *(w for s in ("json", "md", "txt") for w in ("--report", f"out.{s}")))
    assert code == 0, text
    assert "pass by own tolerance" in text and "a table of exponentials" in text
    stored = json.loads((tmp_path / "out.json").read_text())
    assert set(stored["matrix"]) == {"example"} and set(stored["matrix"]["example"]) == {
        "add", "softmax"}
    assert stored["matrix"]["example"]["add"]["float32"]["passed"] == COUNT["add"]
    assert stored["matrix"]["example"]["softmax"]["float32"]["budget_used"] > 1
    assert stored["matrix"]["example"]["add"]["float32"]["speed"]["seconds"] > 0
    page = (tmp_path / "out.md").read_text()
    assert "| add | float32 | pass |" in page and "GB/s" in page
    assert "| softmax | float32 | pass by own tolerance |" in page
    assert "- own tolerance of example:softmax for softmax: 10000 ×" in page
    assert lines((tmp_path / "out.txt").read_text(), "add", "float32", "pass")


def test_a_kernel_that_refuses_everything_is_not_green(suite, tmp_path):
    code, text = suite(ADD + REFUSES, "--op", "add,swiglu", "--report", "out.md")
    assert code == 1 and "example:swiglu takes no example of swiglu that has anything in it" in text
    page = (tmp_path / "out.md").read_text()
    assert f"| swiglu | float32 | {COUNT['swiglu']} refused |" in page
    assert "example swiglu float32 refused: example:swiglu: needs a moon" in page


def test_known_failures(suite, tmp_path):
    code, text = suite(WRONG, "--op", "rms_norm", "--report", "out.md")
    assert code == 1 and f"**FAIL** 1 of {COUNT['rms_norm']} |" in (
        tmp_path / "out.md").read_text()
    known = "rms_norm-example-float32-*scale0.001 small rows are flushed\n"
    code, text = suite(WRONG, "--op", "rms_norm", "--report", "out.md", known_failures=known)
    assert code == 0, text
    page = (tmp_path / "out.md").read_text()
    count = COUNT["rms_norm"]
    assert f"pass, {count - 1} of {count} (1 known failure)" in page
    assert "small rows are flushed" in page
    code, text = suite(ADD + WRONG, "--op", "rms_norm",
                       known_failures=known + "rms_norm-example-float32-nan once wrong\n")
    assert code == 1 and "[XPASS(strict)] once wrong" in text
    code, text = suite(WRONG, known_failures="rms_nrm-* a misspelling\n")
    assert code == 2 and "rms_nrm-* matches no test" in text


def test_a_known_failure_needs_a_reason(tmp_path):
    path = tmp_path / "known.txt"
    path.write_text("# a comment\n\nadd-*  overflows: see issue 3\nrope-*\n")
    with pytest.raises(OptionError, match=r"known.txt:4: rope-\* has no reason"):
        read(path)


@pytest.mark.parametrize(("options", "complaint"), [
    (["--op", "nonsense"], "unknown op; known: .*softmax"),
    (["--dtype", "f8"], "no op is tested with it; expected one of"),
    (["--op", "add", "--dtype", "i8"], "no cell of the matrix has both"),
    (["--report", "x.pdf"], r"ends with .json, .md or .txt"),
    (["--op", "add", "--include", "missing.json"], "missing.json cannot be read"),
    (["--op", "add", "--expect", "missing.md"], "there is no such file"),
    (["--op", "add", "--write-lock", "x.lock"], "no lock was written")])
def test_bad_options(suite, options, complaint):
    code, text = suite(ADD, *options)
    assert code in (1, 2) and "Traceback" not in text and "hookexec" not in text
    assert re.search(complaint, text), text


def test_a_stale_page_fails_the_run(suite, tmp_path):
    options = ["--op", "add"]
    assert suite(ADD, *options, "--report", "page.md")[0] == 0
    page = tmp_path / "page.md"
    page.write_text(page.read_text().replace("\n## Measured", "\n## Measured\nfaster elsewhere"))
    assert suite(ADD, *options, "--expect", "page.md")[0] == 0
    page.write_text(page.read_text().replace("| add | float16 | — |", "| add | float16 | pass |"))
    code, text = suite(ADD, *options, "--expect", "page.md")
    assert code == 1 and "page.md is stale" in text and "+| add | float16 | — |" in text


def report(**counts):
    found = Report()
    found.matrix = {"gpu": {"add": {"float32": Counts(**counts)}}}
    return found


@pytest.mark.parametrize(("counts", "said"), [
    ({"passed": ADDS}, "pass"), ({"passed": ADDS - 2}, f"pass, {ADDS - 2} of {ADDS} "
                                                        "(2 not yet run)"),
    ({"passed": ADDS - 1, "failed": 1}, f"**FAIL** 1 of {ADDS}"),
    ({"skipped": ADDS}, f"{ADDS} refused"), ({"skipped": 1, "offered": False}, "—"),
    ({"passed": ADDS - 1, "skipped": 1}, f"pass, {ADDS - 1} of {ADDS} (1 refused)"),
    ({"known": ADDS}, f"{ADDS} known failures"), ({}, f"{ADDS} not yet run"),
    ({"passed": ADDS, "own": 1}, "pass by own tolerance")])
def test_only_a_pass_reads_as_one(counts, said):
    (row,) = [r for r in render.rows(report(**counts)) if r[1] == "float32"]
    assert row[2][0][0] == said


def test_the_committed_gpu_record_is_read():
    found = Report()
    found.include(ROOT / "tests/gpu_report.json")
    page = render.markdown(found, "command")
    assert {"cuda_cupy", "cuda_pycuda"} <= {*found.backends}
    said = [render.status(found.matrix[b]["add"]["float32"], ADDS)
            for b in ("cuda_cupy", "cuda_pycuda")]
    assert f"| add | float32 | {said[0]} | {said[1]} |" in page
    assert all(text.startswith("pass") for text in said)
