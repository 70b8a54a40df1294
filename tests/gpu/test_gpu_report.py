"""Compares CUDA sources with the committed record of the GPU run that tested them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from core.conformance.plugin import GPU
from core.conformance.report import (
    BACKEND,
    CASE,
    CHECK,
    SPEEDS,
    Report,
    source_hashes,
    uncovered,
)
from core.installed.registry import default_registry

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "tests/gpu_report.json"
ELSEWHERE = {"backend": "other", "shape": "llama3.2-1b"}


def cuda_sources(backend: Path) -> dict[str, Path]:
    """Return the CUDA sources by the names that Backend.sources gives them."""
    return {p.name: p for p in backend.rglob("*.cu*") if p.suffix in (".cu", ".cuh")}


@pytest.mark.parametrize("backend", sorted(p.name for p in (ROOT / "backends").iterdir()
                                           if cuda_sources(p)) or ["none"])
def test_every_cuda_source_was_tested_on_a_gpu(backend):
    if backend == "none":
        pytest.skip("no backend has CUDA sources")
    report, sources = json.loads(REPORT.read_text()), cuda_sources(ROOT / "backends" / backend)
    unverified = report["unverified"].get(backend, [])
    assert uncovered(report, backend, sources) == [], \
        "run the GPU tests again, or list the files as unverified in tests/gpu_report.json"
    assert set(unverified) <= set(sources), "the report lists files that are no more"
    assert report["failed"].get(backend, []) == []
    checks = report.get("checks", {}).get(backend, {})
    assert [test for test, found in checks.items() if found["outcome"] != "passed"] == []
    if set(unverified) == set(sources):
        pytest.skip(f"{backend}: none of its {len(sources)} sources has run on a GPU yet")
    cells = [c for ops in report["matrix"].get(backend, {}).values() for c in ops.values()]
    assert sum(c["passed"] for c in cells) > 100 and not any(c["failed"] for c in cells)


def test_a_changed_source_is_noticed(tmp_path):
    kernel = tmp_path / "a.cu"
    kernel.write_text("one")
    assert uncovered({}, "b", {"a.cu": kernel}) == ["a.cu"]
    assert uncovered({"unverified": {"b": ["a.cu"]}}, "b", {"a.cu": kernel}) == []
    assert uncovered({"unverified": {"other": ["a.cu"]}}, "b", {"a.cu": kernel}) == ["a.cu"]
    covered = {"sources": {"b": source_hashes({"a.cu": kernel})}}
    assert uncovered(covered, "b", {"a.cu": kernel}) == []
    kernel.write_text("two")
    assert uncovered(covered, "b", {"a.cu": kernel}) == ["a.cu"]


def test_the_report_counts_cells_and_keeps_other_backends(written):
    assert written["matrix"]["cpu_numpy"]["add"]["float32"]["passed"] >= 5
    assert written["matrix"]["cpu_numpy"]["add"]["float16"]["skipped"] == 1
    assert written["failed"] == {"cpu_numpy": []} and written["speeds"] == [ELSEWHERE]
    assert "NumPy" in written["devices"]["cpu_numpy"]
    assert written["unverified"] == {"cpu_numpy": [], "other": ["x.cu"]}


def test_speeds_are_replaced_and_those_of_other_sources_dropped(tmp_path):
    path, registry = tmp_path / "report.json", default_registry()
    slow, fast = ({"backend": "cpu_numpy", "shape": "a", "decode": n} for n in (1, 2))
    old = {"backend": "cpu_numpy", "shape": "b"}
    path.write_text(json.dumps({"speeds": [slow, old, ELSEWHERE]}))
    report = Report()
    report.add("test", "passed", {SPEEDS: [fast]})
    report.write_json(path, registry)
    assert json.loads(path.read_text())["speeds"] == [old, ELSEWHERE, fast]
    report.add("test", "passed", {CASE: {"backend": "cpu_numpy", "op": "add", "dtypes": "float32",
                                         "tolerances": {}, "kernels": {}}})
    report.describe(registry)
    path.write_text(json.dumps({"speeds": [slow, old, ELSEWHERE],
                                "sources": {"cpu_numpy": {"gone.cu": "0"}}}))
    report.write_json(path, registry)
    assert json.loads(path.read_text())["speeds"] == [ELSEWHERE, fast]


def test_checks_are_kept_until_the_sources_change(tmp_path):
    path, registry = tmp_path / "report.json", default_registry()
    report = Report()
    report.add("tests/test_a.py::b", "passed", {CHECK: {"backend": "cpu_numpy", "said": "fine"}})
    report.add("tests/test_a.py::c", "skipped", {CHECK: {"backend": "cpu_numpy", "said": ""}})
    report.write_json(path, registry)
    stored = json.loads(path.read_text())
    assert stored["checks"] == {"cpu_numpy": {"test_a.py::b": {"outcome": "passed",
                                                               "said": "fine"}}}
    path.write_text(json.dumps({**stored, "sources": {"cpu_numpy": {"gone.cu": "0"}}}))
    again = Report()
    again.add("test", "passed", {CASE: {"backend": "cpu_numpy", "op": "add", "dtypes": "float32",
                                        "tolerances": {}, "kernels": {}}})
    again.describe(registry)
    again.write_json(path, registry)
    assert json.loads(path.read_text())["checks"] == {}


@pytest.mark.skipif(any(spec.device == GPU and default_registry().unavailable(name) is None
                        for name, spec in default_registry().specs.items()),
                    reason="this machine has a GPU")
def test_a_failure_counts_for_its_backend_alone(tmp_path):
    pytest.importorskip("cpu_numba", reason="needs ./backends/cpu_numba")
    path, registry = tmp_path / "report.json", default_registry()
    report = Report()
    for backend in ("cpu_numpy", "cpu_numba"):
        report.add(f"test[{backend}]", "passed", {CASE: {
            "backend": backend, "op": "add", "dtypes": "float32", "tolerances": {}, "kernels": {}}})
    report.add("test_a", "failed", {BACKEND: "cpu_numpy"})
    report.add("test_b", "failed", {})
    report.describe(registry)
    report.write_json(path, registry)
    failed = json.loads(path.read_text())["failed"]
    assert failed["cpu_numpy"] == ["test_a", "test_b"] and failed["cpu_numba"] == ["test_b"]


def test_a_gpu_report_needs_a_gpu(tmp_path):
    done = subprocess.run([sys.executable, "-m", "models.conform", "-q", "--gpu-report",
                           "report.json"], cwd=tmp_path, capture_output=True,
                          text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "--gpu-report needs a backend that computes on a GPU" in done.stdout + done.stderr
    assert not (tmp_path / "report.json").exists()


@pytest.fixture
def written(tmp_path):
    """Write what a real run of part of the matrix writes, keeping the speeds that were there."""
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"speeds": [ELSEWHERE], "unverified": {"other": ["x.cu"],
                                                              "cpu_numpy": ["y"]}}))
    subprocess.run([sys.executable, "-m", "models.conform", "-q", "--backend", "cpu_numpy",
                    "-k", "add-", "--report", str(path)], check=True,
                   cwd=tmp_path, capture_output=True, timeout=120)
    return json.loads(path.read_text())
