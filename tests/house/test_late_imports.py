"""Imports bring in what is used: public names of `models` and commands come when asked for."""

import subprocess
import sys

import pytest

import core
import models


def loaded(code):
    """Return the modules that a new process has when `code` ends, by itself or by exiting."""
    begin = "import atexit, sys\natexit.register(lambda: print(*sys.modules))\n"
    done = subprocess.run([sys.executable, "-c", begin + code], capture_output=True, text=True,
                          check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_packages_bring_no_room_that_is_not_used():
    found = loaded("import core, models")
    assert not found & {"core.runtime", "core.plan", "core.verify", "core.devices.cuda", "email"}
    assert {m for m in found if m.startswith("models")} == {"models"}


def test_a_command_brings_no_other():
    code = "from models.__main__ import main\nmain(['run', '--help'])"
    found = loaded(code)
    assert "models.run" in found
    assert not found & {"models.serve", "models.batch", "models.bench", "models.serving.engine",
                        "asyncio"}


def test_every_public_name_has_a_home():
    assert sorted(models._HOMES) == models.__all__ == sorted(models.__all__)
    assert set(core._LATE) < set(core.__all__)
    assert set(models.__all__) <= set(dir(models))


@pytest.mark.parametrize("module", [core, models])
def test_a_name_is_kept_and_an_unknown_one_refused(module):
    name = {core: "run_op", models: "load"}[module]
    assert getattr(module, name) is getattr(module, name) is vars(module)[name]
    with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'x'"):
        module.x  # noqa: B018 - it raises
