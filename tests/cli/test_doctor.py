"""models.doctor: shows one page, also where something is broken."""

import json
import sys
from importlib.metadata import EntryPoint

import core.plugins.registry
from core.plugins.loader import Plugins
from core.plugins.registry import Registry
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


def test_broken_plugins_and_missing_modules(monkeypatch, capsys):
    group = core.plugins.loader.GROUP
    entries = [e for e in core.plugins.loader.entry_points(group=group) if e.name == "models"]
    registry = Registry(Plugins([*entries, EntryPoint("bad", "no_such_module", group)]))
    monkeypatch.setattr(doctor, "whole_registry", lambda args: registry)
    assert doctor.main([]) == 1
    assert "No module named 'no_such_module'" in capsys.readouterr().out
    registry.specs["far"] = core.BackendSpec("far", "far:0", "far:Far", "far away",
                                                     {"no_such": "pip install no-such"})
    assert doctor.main(["--json"]) == 1
    (far,) = json.loads(capsys.readouterr().out)["backends"]
    assert far["fix"] == "pip install no-such" and "'no_such' is missing" in far["reason"]
