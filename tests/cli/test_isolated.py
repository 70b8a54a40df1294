"""--isolate: a kernel that ends its process is named, and standard output stays whole."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from zoo.table import SUPPORT, install

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals have other names")
WHO = r"layers\.0\.input_layernorm \(rms_norm\), zoo:rms_norm \(kernelyard-zoo 1\.0\), T=2, D=128, "
RUN = ("models.run", "--backend", "zoo,cpu_numpy", "--prompt-ids", "5,6", "--max-new-tokens", "2",
       "--json")
APART = ("--isolate", "--step-timeout", "5")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return install(tmp_path_factory.mktemp("zoo") / "site")


def start(site, kernel, *arguments, **more):
    path = os.pathsep.join(filter(None, [str(site), str(SUPPORT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=site.parent, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path, "ZOO": kernel}, **more)


def python(site, kernel, *arguments, code, stdin=None):
    process = start(site, kernel, *arguments, stdin=subprocess.PIPE)
    stdout, stderr = process.communicate(stdin or "", timeout=300)
    assert process.returncode == code and "Traceback" not in stderr, stdout + stderr
    return stdout, stderr


@pytest.mark.parametrize(("kernel", "said"), [
    ("segfault", r"killed by signal 11 \(SIGSEGV\), at .*kernels\.py:\d+"),
    ("exit_launch", "ended Python with exit code 0"),
    ("endless", r"took over 5 s, at .*kernels\.py:\d+")])
def test_a_death_is_named(site, kernel, said):
    stdout, stderr = python(site, kernel, *RUN, "--check", "reference", *APART, code=3)
    assert stdout == "" and re.search(rf"^error: {WHO}.*: {said}$", stderr, re.M), stderr


def test_a_death_in_verify_is_named(site):
    _, stderr = python(site, "segfault", "models.verify", "cpu_numpy", "zoo,cpu_numpy",
                       "--prompt-ids", "5,6", "--max-new-tokens", "1", *APART, code=3)
    assert re.search(rf"^error: {WHO}.*: killed by signal 11", stderr, re.M), stderr


def test_a_right_run_says_the_same(site):
    """Standard input reaches it, and standard output is that of the plain run."""
    said = []
    for apart in ((), APART):
        stdout, _ = python(site, "bind_raises", "models.run", "--backend", "cpu_numpy", "--json",
                           "--max-new-tokens", "3", "--check", "reference", *apart, code=0,
                           stdin="Once upon")
        found = json.loads(stdout)
        assert found["check"]["ok"] and found["text"]
        said.append({k: found[k] for k in ("prompt_tokens", "tokens", "text", "finish_reason")})
    assert said[0] == said[1]
    _, stderr = python(site, "bind_raises", *RUN, *APART, code=3)
    assert f"error: {WHO}"[:30].replace("\\", "") in stderr and "bind raised Runtime" in stderr


@pytest.mark.parametrize("command", [RUN, ("models.verify", "cpu_numpy", "reference"),
                                     ("models.conform",)])
def test_a_limit_needs_a_process_apart(site, command):
    _, stderr = python(site, "segfault", *command, "--step-timeout", "5", code=2)
    assert "--step-timeout goes with --isolate" in stderr


def test_ctrl_c_ends_both(site):
    process = start(site, "endless", *RUN, "--isolate", start_new_session=True)
    try:
        assert "kernelyard-zoo" in process.stderr.readline()  # it has loaded its plugins
        time.sleep(3)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
    finally:
        process.kill()
        process.wait()


def test_the_suite_goes_on_with_the_next_case(site):
    stdout, _ = python(site, "segfault_17", "models.conform", "--backend", "zoo", "--op",
                       "rms_norm", "-k", "matches_reference and float32 and not W", *APART,
                       "--report", "r.json", "--", "-q", code=1)
    assert re.search(r"T=17, D=2048, A=f32, W=f32: killed by signal 11 \(SIGSEGV\), at", stdout)
    failed, passed = map(int, re.search(r"(\d+) failed, (\d+) passed", stdout).groups())
    named = re.findall("^rms_norm, zoo:.* killed by", stdout, re.MULTILINE)
    assert len(named) == failed and passed > failed, stdout
    report = json.loads((site.parent / "r.json").read_text())
    cell = report["matrix"]["zoo"]["rms_norm"]["float32"]
    assert (cell["failed"], cell["passed"]) == (failed, passed) and cell["budget_used"] is None
