"""Tests plugins that are broken in every way we could think of: reported, and no hindrance to
others."""

from pathlib import Path

import pytest

GOOD = '''
from core import BackendSpec, hookimpl
KERNELYARD_API = 1
@hookimpl
def register_backends(register):
    register(BackendSpec({name!r}, "cpu", "nowhere:Backend", "a test"))
'''
BROKEN = {
    "fails_at_import": ("import no_such_module\nKERNELYARD_API = 1\n",
                        "No module named 'no_such_module'"),
    "misspelt_hook": (GOOD.format(name="misspelt").replace("def register_backends",
                                                           "def register_backend"),
                      "unknown hook 'register_backend'"),
    "other_api": (GOOD.format(name="other").replace("API = 1", "API = 7"),
                  "KERNELYARD_API = 7, this core serves 1 to 2"),
    "no_api": (GOOD.format(name="none").replace("KERNELYARD_API = 1", ""), "KERNELYARD_API = None"),
    "raises_in_hook": (GOOD.format(name="x").replace("register(Backend", "1 / 0; register(Backend"),
                       "ZeroDivisionError"),
    "steals_a_name": (GOOD.format(name="cpu_numpy"), "a backend has the name of its entry point"),
    "exits": ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
    "raises_after_registering": (GOOD.format(name="NAME") + "    raise ValueError('late')\n",
                                 "ValueError: late"),
    "steals_an_architecture": ('''
from core import hookimpl
KERNELYARD_API = 1
@hookimpl
def register_models(register):
    register("LlamaForCausalLM", None)
''', "architecture 'LlamaForCausalLM' is registered twice"),
    "wrong_argument": (GOOD.format(name="x").replace("(register)", "(register, other)"),
                       "Argument"),
}


def install(site: Path, distribution: str, name: str, source: str):
    """Write what pip would leave behind: a module, and a dist-info folder with its entry point."""
    module = distribution.replace("-", "_")
    (site / f"{module}.py").write_text(source)
    info = site / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[kernelyard.plugins]\n{name} = {module}\n")


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("first", ["aa", "zz"])  # loaded before and after the installed ones
@pytest.mark.parametrize("name", BROKEN)
def test_broken_plugin_is_reported_and_the_others_work(name, first, site, run_cli):
    source, reason = BROKEN[name]
    source = source.replace("NAME", f"{first}_{name}")
    install(site, f"broken-{name}", f"{first}_{name}", source)
    listed = run_cli("--list-backends", path=str(site), code=0).stdout
    if name == "steals_an_architecture":  # found out when a model is loaded
        assert "available: NumPy" in listed
        done = run_cli("--max-new-tokens", "3", path=str(site), code=0)
        assert done.stdout.startswith("Once upon a time")
        return
    assert f"broken plugin {first}_{name} (from broken-{name} 1.0): " in listed and reason in listed
    assert "cpu_numpy" in listed and "available: NumPy" in listed
    done = run_cli("--max-new-tokens", "3", path=str(site), code=0)
    assert done.stdout.startswith("Once upon a time") and reason in done.stderr


def test_two_plugins_of_one_name(site, run_cli):
    for distribution in ("first", "second"):
        install(site, distribution, "twin", GOOD.format(name="twin"))
    listed = run_cli("--list-backends", path=str(site), code=0).stdout
    assert "broken plugin twin (from second 1.0): the name 'twin' is already taken by first 1.0" \
        in listed


def test_all_at_once(site, run_cli):
    for name, (source, _) in BROKEN.items():
        install(site, f"broken-{name}", f"aa_{name}", source)
    listed = run_cli("--list-backends", path=str(site), code=0).stdout
    assert listed.count("broken plugin") == len(BROKEN) - 1  # one shows when a model is loaded
    assert run_cli("--max-new-tokens", "3", path=str(site), code=0).stdout.startswith("Once upon")


def test_a_backend_that_cannot_start_says_why(site, run_cli):
    install(site, "nowhere-plugin", "nowhere", GOOD.format(name="nowhere"))
    listed = run_cli("--list-backends", path=str(site), code=0).stdout
    assert "backend nowhere is unavailable: nowhere:Backend failed" in listed
    done = run_cli("--backend", "nowhere", path=str(site), code=2)
    assert "No module named 'nowhere'" in done.stderr


def test_an_unknown_backend_lists_what_there_is(site, run_cli):
    install(site, "broken-one", "cuda_cupy2", BROKEN["fails_at_import"][0])
    error = run_cli("--backend", "cuda_cupy2", path=str(site), code=2).stderr
    assert "unknown backend 'cuda_cupy2'; installed:" in error and "cpu_numpy" in error
    assert "No module named 'no_such_module'" in error and "did you mean 'cuda_cupy'?" in error
    assert "pip install" not in error  # anybody may publish a package of that name


KERNELS = GOOD.format(name="kernel_test").replace(
    "nowhere:Backend", "cpu_numpy.backend:NumpyBackend") + '''
from core import KernelSet
kernels = KernelSet("kernel_test")
@kernels.implements({op!r}, dtypes={dtypes!r})
def kernel({parameters}):
    return lambda: None
@hookimpl
def register_kernels(backend, register):
    if backend == "kernel_test":
        for k in kernels:
            register(k)
'''


@pytest.mark.parametrize(("op", "dtypes", "parameters", "complaint"), [
    ("add", {"A": "f32"}, "a, b, result", "has parameters (a, b, result), but op add"),
    ("rms_norm", {"A": "f32", "W": "f32"}, "x, weight, out",
     "declares (x, weight, out, *, eps)"),
    ("add", {"A": "f32", "W": "f32"}, "a, b, out", "gives dtypes for ['A', 'W']"),
    ("addd", {"A": "f32"}, "a, b, out", "unknown op 'addd'"),
    ("add", {"A": "f31"}, "a, b, out", "dtype 'f31' is not supported"),
])
def test_kernels_that_do_not_fit_their_op(site, run_cli, op, dtypes, parameters, complaint):
    source = KERNELS.replace("{op!r}", repr(op)).replace("{dtypes!r}", repr(dtypes)).replace(
        "{parameters}", parameters)
    install(site, "kernel-test", "kernel_test", source)
    error = run_cli("--backend", "kernel_test,cpu_numpy", path=str(site), code=2).stderr
    assert complaint in error


def test_a_missing_requirement_is_named(site, run_cli):
    source = GOOD.format(name="needy").replace(
        '"a test")', '"a test", requires={"no_such.sub": "pip install no-such"})')
    install(site, "needy-plugin", "needy", source)
    listed = run_cli("--list-backends", path=str(site), code=0).stdout
    assert "module 'no_such.sub' is missing; fix: pip install no-such" in listed
