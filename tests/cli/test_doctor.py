"""models.doctor: shows one page, also where something is broken."""

import importlib.metadata
import json
import sys
from importlib.metadata import EntryPoint

import core.installed.registry
from core.installed.discovery import GROUP, find_entries
from core.installed.loader import Plugins
from core.installed.registry import Registry
from models import __main__ as cli
from models import doctor


def test_the_page_names_everything(capsys):
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["python"] == sys.version.split()[0]
    packages = {p["module"]: p for p in found["packages"]}
    import numpy
    assert packages["numpy"]["version"] == numpy.__version__
    numpy_backend = next(b for b in found["backends"] if b["name"] == "cpu_numpy")
    assert numpy_backend["available"] and numpy_backend["free"] > 0 and numpy_backend["kernels"] > 9
    assert numpy_backend["description"] == "NumPy and its BLAS, float32 arithmetic"
    for b in found["backends"]:  # what does not work says how to fix it
        assert b["available"] or (b["reason"] and b["fix"])
    assert all(p["path"].endswith(".py") for p in found["plugins"] if p["state"] == "loaded")
    assert doctor.main([]) == 0
    shown = capsys.readouterr().out
    assert "NumPy and its BLAS, float32 arithmetic" in shown and "models/plugin.py" in shown


def test_versions_without_top_level_and_record(tmp_path, monkeypatch):
    """Most packages have no top_level.txt now, which Python 3.10's packages_distributions reads."""
    for module, name, version in (("cupy", "cupy_cuda13x", "98.1"), ("gguf", "gguf", "99.2"),
                                  ("pycuda", None, None)):
        (tmp_path / f"{module}.py").write_text("raise ImportError('nothing is imported')")
        if name:
            info = tmp_path / f"{name}-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(doctor, "MODULES", {**doctor.MODULES, "no_such_module": "nobody"})
    monkeypatch.delitem(sys.modules, "gguf", raising=False)
    found = {p["module"]: (p["distribution"], p["version"]) for p in doctor.packages()}
    assert found["gguf"] == ("gguf", "99.2") and found["pycuda"] == ("pycuda", "unknown")
    assert found["cupy"] == ("cupy-cuda13x", "98.1")
    assert found["no_such_module"] == ("no_such_module", None)
    assert found["numpy"][1] == importlib.metadata.version("numpy")


def test_broken_plugins_and_missing_modules(monkeypatch, capsys):
    entries = [e for e in find_entries()[0] if e.name == "models"]
    registry = Registry(Plugins([*entries, EntryPoint("bad", "no_such_module", GROUP)]))
    monkeypatch.setattr(doctor, "whole_registry", lambda args, prober: registry)
    assert doctor.main([]) == 1
    assert "No module named 'no_such_module'" in capsys.readouterr().out
    registry.specs["far"] = core.BackendSpec("far", "far:0", "far:Far", "far away",
                                                     {"no_such": "pip install no-such"})
    assert doctor.main(["--json"]) == 1
    (far,) = json.loads(capsys.readouterr().out)["backends"]
    assert far["fix"] == "pip install no-such" and "'no_such' is missing" in far["reason"]
