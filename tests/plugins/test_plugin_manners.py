"""Plugins of strangers: from where they load, which the user wants, what they print and break."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from plugin_site import install

import core
import models
from core.errors import OptionError, PluginError
from core.installed.choice import PluginChoice
from core.installed.discovery import find_entries
from core.installed.loader import Plugins
from core.installed.registry import Registry, default_registry
from models.cli import probe

FINE = '''
from core import BackendSpec, hookimpl
KERNELYARD_API = 2
@hookimpl
def register_backends(register):
    register(BackendSpec("NAME", "cpu", "nowhere:Backend", "a test"))
'''
LOUD = "import os\nprint('RAN')\nopen('ran', 'w').close()\n" + FINE


def python(folder, *arguments, path=(), code=0, **env):
    paths = os.pathsep.join(filter(None, [*map(str, path), os.environ.get("PYTHONPATH")]))
    done = subprocess.run([sys.executable, *arguments], cwd=folder, text=True, capture_output=True,
                          stdin=subprocess.DEVNULL, timeout=120,
                          env={**os.environ, "PYTHONPATH": paths, **env})
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


RUN = ("-m", "models.run", "--max-new-tokens", "2", "--json")


def test_a_plugin_in_the_current_folder_is_named_and_not_loaded(tmp_path):
    folder = install(tmp_path / "downloaded", "evil-plugin", "evil", LOUD)
    for path in ((), (folder,), (".",)):  # naming the current folder changes nothing
        done = python(folder, *RUN, path=path)
        assert json.loads(done.stdout)["tokens"] and "RAN" not in done.stderr
        (line,) = [text for text in done.stderr.splitlines() if "evil" in text]
        assert line.startswith("plugin evil (from evil-plugin 1.0) lies in the current folder (")
        assert "was not loaded: install it" in line and not (folder / "ran").exists()
    done = python(folder, "-m", "models.run", "--backend", "evil", code=2)
    assert "plugin evil (from evil-plugin 1.0) lies in the current folder" in done.stderr
    page = json.loads(python(folder, "-m", "models.doctor", "--json").stdout)
    assert ("evil", "not loaded") in {(p["name"], p["state"]) for p in page["plugins"]}
    assert not (folder / "ran").exists()


def test_a_name_of_ours_in_the_current_folder_hides_nothing(tmp_path):
    folder = install(tmp_path / "downloaded", "evil", "models2", LOUD)
    metadata = folder / "evil-1.0.dist-info/METADATA"
    metadata.write_text(metadata.read_text().replace("Name: evil", "Name: Kernelyard"))
    done = python(folder, *RUN)
    assert "plugin models2 (from Kernelyard 1.0) lies in the current folder" in done.stderr
    assert not (folder / "ran").exists()


def test_a_folder_below_the_current_one_loads_where_pythonpath_names_it(tmp_path, monkeypatch):
    site = install(tmp_path / "site", "near-plugin", "near", FINE.replace("NAME", "near"))
    done = python(tmp_path, *RUN, path=[site])
    assert "plugins: near (near-plugin 1.0)" in done.stderr
    code = ("import sys; sys.path.insert(0, 'site'); from core.installed.loader import Plugins; "
            "p = Plugins(); print(*p.distributions); print(p.lying[0])")
    assert "near" not in python(tmp_path, "-c", code).stdout.splitlines()[0].split()


def test_a_virtual_environment_below_the_current_folder_works(tmp_path):
    """Site-packages of the interpreter count as installed, wherever they are."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=tmp_path,
                   check=True)
    (packages,) = tmp_path.glob(".venv/lib/python*/site-packages")
    install(packages, "inner-plugin", "inner", FINE.replace("NAME", "inner"))
    code = ("import sys; sys.path += sys.argv[1:]; from core.installed.loader import Plugins; "
            "p = Plugins(); print(*p.distributions); assert not p.lying")
    ours = str(Path(core.__file__).parents[1])  # an editable install is no entry of the path
    done = subprocess.run([tmp_path / ".venv/bin/python", "-c", code, ours,
                           *filter(None, sys.path)],
                          cwd=tmp_path, text=True, capture_output=True, check=False)
    assert "inner" in done.stdout.split(), done.stderr


def test_a_plugin_in_the_folder_of_the_model_is_an_error(tmp_path, model_copy):
    folder = model_copy()
    site = install(folder / "code", "evil-plugin", "evil", FINE.replace("NAME", "evil"))
    for door in ("run", "plan", "export"):
        more = ["--out", "x", "--to", "hf"] if door == "export" else []
        done = python(tmp_path, "-m", f"models.{door}", "--model", str(folder), *more, path=[site],
                      code=2)
        assert f"plugin evil lies in the folder of the model ({site})" in done.stderr


def test_a_distribution_without_metadata_stops_nothing(tmp_path, monkeypatch):
    info = tmp_path / "odd-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text("[kernelyard.plugins]\nodd = odd_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugins = Plugins()
    assert [b.name for b in plugins.broken] == ["odd"] and "models" in plugins.distributions
    assert "odd" in [e.name for e in find_entries()[0]]


def test_plugins_can_be_chosen(tmp_path):
    site = install(tmp_path / "site", "some-plugin", "stranger", LOUD.replace("NAME", "stranger"))
    assert "plugins: stranger (some-plugin 1.0)" in python(tmp_path, *RUN, path=[site]).stderr
    (tmp_path / "ran").unlink()
    for door in (["run", "--max-new-tokens", "2"], ["plan"], ["doctor"], ["conform", "--op", "add"],
                 ["verify", "cpu_numpy", "reference", "--max-new-tokens", "1"],
                 ["export", "--out", "m", "--to", "hf", "--model", "stories-llama2"],
                 ["bench", "--model", "stories-llama2", "--tokens", "2", "--repeat", "1"],
                 ["run", "--list-backends"]):
        for choice in (["--without-plugin", "stranger"], ["--only-plugins", "cpu_numpy"]):
            if door[0] not in ("run", "conform") and choice[0] == "--only-plugins":
                continue  # the same code
            done = python(tmp_path, "-m", f"models.{door[0]}", *door[1:], *choice, path=[site])
            assert "stranger" not in done.stderr + done.stdout, door
            assert not (tmp_path / "ran").exists(), door
    done = python(tmp_path, *RUN, "--without-plugin", "sum", path=[site], code=2)
    assert "--without-plugin sum: no such plugin; installed: " in done.stderr
    assert "cpu_numpy" in done.stderr and "stranger" in done.stderr


@pytest.mark.parametrize(("options", "complaint"), [
    ({"only_plugins": "nope,cpu_numpy"}, "--only-plugins nope: no such plugin; .*: .*models"),
    ({"without_plugins": ["models"]}, "--without-plugin models: .*cannot be left out"),
    ({"only_plugins": " "}, "names no plugin"),
    ({"only_plugins": "cpu_numpy", "without_plugins": "cpu_numpy"}, "both name cpu_numpy")])
def test_bad_choices(options, complaint):
    with pytest.raises(OptionError, match=complaint):
        models.load("stories-llama2", **options)


def test_choices_have_registries_of_their_own():
    with models.load("stories-llama2", only_plugins=["cpu_numpy"]) as model:
        found = model.session.policy.registry
    assert sorted(found.specs) == ["cpu_numpy"] and found is not default_registry()
    assert found is default_registry(choice=PluginChoice.of("cpu_numpy", ()))
    assert sorted(found.plugins.distributions) == ["cpu_numpy", "models"]


WORST = {"exits": ("import os; os._exit(0)", "ended Python with exit code 0"),
         "crashes": ("import ctypes; ctypes.string_at(0)", "ended Python by SIGSEGV"),
         "raises": ("class Odd(BaseException): pass\nraise Odd('odd')", "Odd: odd"),
         "leaves": ("raise SystemExit(0)", "SystemExit: 0"),
         "hook_exits": (FINE.replace("    register(", "    import os; os._exit(5)\n    register("),
                        "ended Python with exit code 5 while its hooks were called"),
         "late": (FINE + "@hookimpl\ndef register_models(register):\n    1 / 0\n",
                  "ZeroDivisionError"),
         "shapeless": (FINE + "@hookimpl\ndef register_models(register):\n    register(3)\n",
                       r"register\(3,\): expected a name and a thing"),
         "no_op": (FINE + "@hookimpl\ndef register_ops(register):\n    register('x')\n",
                   "PluginError: register_ops: register('x',) was called; expected one Op")}


@pytest.mark.skipif(os.name != "posix", reason="signals have other names")
def test_doctor_and_the_list_survive_everything(tmp_path):
    site = tmp_path / "site"
    for name, (source, _) in WORST.items():
        install(site, f"bad-{name.replace('_', '-')}", name, source.replace("NAME", name))
    install(site, "loud-plugin", "loud", "import os, time\nprint('hello')\n"
            "os.system('echo there')\ntime.sleep(0.2)\n" + FINE.replace("NAME", "loud"))
    done = python(tmp_path, "-m", "models.doctor", "--json", path=[site], code=1)
    plugins = {p["name"]: p for p in json.loads(done.stdout)["plugins"]}
    for name, (_, reason) in WORST.items():
        assert plugins[name]["state"] == "broken", plugins[name]
        assert reason.replace("\\", "") in plugins[name]["reason"]
    assert plugins["loud"]["state"] == "loaded" and 0.2 <= plugins["loud"]["import_s"] < 5
    assert plugins["loud"]["output"].split() == ["hello", "there"]
    assert "plugin loud printed: hello" in done.stderr
    listed = python(tmp_path, "-m", "models.run", "--list-backends", path=[site]).stdout
    assert all(f"broken plugin {name}" in listed for name in WORST) and "available: NumPy" in listed


ENDLESS = """
import os, subprocess, sys
print("begins", flush=True)
began = os.open(FIFO, os.O_WRONLY)
os.write(began, b"x")
subprocess.run([sys.executable, "-c", "import time; time.sleep(9999)"], pass_fds=[began])
"""


@pytest.mark.skipif(os.name != "posix", reason="needs a FIFO")
def test_an_endless_import_is_ended(tmp_path, monkeypatch):
    """The clock stands until the plugin has begun: the speed of the machine does not matter."""
    fifo, begun, now = tmp_path / "began", False, 0
    os.mkfifo(fifo)
    install(tmp_path, "endless-plugin", "endless", ENDLESS.replace("FIFO", repr(str(fifo))))
    monkeypatch.syspath_prepend(tmp_path)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)

    def clock():
        nonlocal begun, now
        with suppress(BlockingIOError):  # nothing new
            begun = bool(os.read(reader, 9)) or begun
        now += 11 * begun  # at each look from now on
        return now
    monkeypatch.setattr(probe, "_clock", clock)
    prober = probe.Prober()
    registry = Registry(Plugins(examine=prober))
    (broken,) = [b for b in registry.plugins.broken if b.name == "endless"]
    assert broken.reason == "took over 10 s while it was imported, in a process apart"
    assert prober.found["endless"].output == "begins" and "endless_plugin" not in sys.modules
    os.set_blocking(reader, True)
    assert os.read(reader, 9) == b""  # nobody holds the other end: what it started has ended too
    os.close(reader)


@pytest.mark.skipif(os.name != "posix", reason="needs limits of processes")
def test_endless_output_is_bounded(tmp_path, monkeypatch):
    install(tmp_path, "chatty-plugin", "chatty", "while True:\n    print('x' * 10**6)\n")
    monkeypatch.syspath_prepend(tmp_path)
    prober = probe.Prober()
    (entry,) = [e for e in find_entries()[0] if e.name == "chatty"]
    registry = Registry(Plugins([entry], examine=prober))
    (broken,) = registry.plugins.broken
    assert broken.reason.startswith("ended Python by SIGXFSZ while it was imported")
    assert len(prober.found["chatty"].output) == 64 << 10


def test_what_a_plugin_prints_goes_to_standard_error(tmp_path):
    source = ("import os\nprint('at import')\nos.system('echo from below')\n" + FINE.replace(
        "NAME", "loud").replace("    register(", "    print('in a hook', end='')\n    register("))
    site = install(tmp_path / "site", "loud-plugin", "loud", source)
    done = python(tmp_path, *RUN, path=[site])
    assert json.loads(done.stdout)["finish_reason"]
    for line in ("plugin loud printed: at import", "plugin loud printed: in a hook", "from below"):
        assert line in done.stderr.splitlines()


def test_the_model_folder_rule_leaves_installed_plugins_alone(tmp_path):
    Plugins().check_outside(Path(sys.prefix))
    plugins = Plugins([])
    plugins._places["evil"] = tmp_path / "code"
    plugins.check_outside(tmp_path / "other" / "model.gguf")
    with pytest.raises(PluginError, match="lies in the folder of the model"):
        plugins.check_outside(tmp_path / "model.gguf")
