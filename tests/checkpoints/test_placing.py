"""Exports that are killed, meet each other, or find something else than a file or folder."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from core.errors import OptionError
from models import export
from models.checkpoints import placing
from models.checkpoints.base import SHIPPED
from models.checkpoints.placing import place_files, place_folder, staging_folder

PAUSED = """
import sys, time
from models import export
from models.cli.report import Loading

def progress(self, what, done, total):
    if what.startswith("writing"):
        print("writing", flush=True)
        time.sleep(60)
Loading.progress = progress
export.main(sys.argv[1:])
"""


def arguments(to, out, *more):
    return ["--model", "stories-llama2", "--to", to, "--out", str(out), "--no-verify", *more]


@pytest.fixture
def paused(tmp_path):
    """An export to `m` in a process of its own that has begun to write."""
    with subprocess.Popen([sys.executable, "-c", PAUSED, *arguments("kuiper", tmp_path / "m")],
                          stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        yield process
        process.kill()


def hidden(folder):
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def test_a_second_export_is_refused(paused, tmp_path, capsys):
    assert export.main(arguments("kuiper", tmp_path / "m")) == 2
    assert "another export to it is running" in capsys.readouterr().err
    assert export.main(arguments("kuiper", tmp_path / "other")) == 0
    assert hidden(tmp_path) == [".m.exporting"]


def test_what_a_killed_export_left_goes(paused, tmp_path):
    paused.send_signal(signal.SIGKILL)
    paused.wait()
    assert hidden(tmp_path) == [".m.exporting"] and list((tmp_path / ".m.exporting").iterdir())
    assert export.main(arguments("kuiper", tmp_path / "m")) == 0
    assert not hidden(tmp_path) and (tmp_path / "m").is_file()


def test_many_at_once(tmp_path):
    """One of them holds the folder at any time, whenever the others remove it."""
    inside, most, refused, made = [], [], [], []

    def work():
        for _ in range(40):
            try:
                with staging_folder(tmp_path / "m") as folder:
                    inside.append(folder)
                    most.append(len(inside))
                    (folder / "file").write_text("")
                    assert sorted(p.name for p in folder.iterdir()) == ["file", "lock"]
                    inside.pop()
                    made.append(1)
            except OptionError:
                refused.append(1)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(made) + len(refused) == 160 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["hf", "kuiper"])
@pytest.mark.parametrize("kind", ["FIFO", "device", "broken link"])
def test_the_target_is_a_file_or_a_folder(kind, to, tmp_path, capsys):
    out = tmp_path / "m"
    if kind == "FIFO":
        os.mkfifo(out)
    else:
        out.symlink_to("/dev/null" if kind == "device" else "nowhere")
    assert export.main(arguments(to, out, "--force")) == 2
    assert "neither a file nor a folder" in capsys.readouterr().err
    assert os.path.lexists(out) and os.path.exists("/dev/null")


def folders(tmp_path):
    """A new folder where exports are staged, and an old one in its place."""
    new, old = tmp_path / "staging" / "model", tmp_path / "m"
    for folder, text in ((new, "new"), (old, "old")):
        folder.mkdir(parents=True)
        (folder / "a").write_text(text)
    return new, old


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="renameat2 is Linux's")
def test_there_always_is_a_whole_folder(tmp_path):
    """Another process looks at the target while it is replaced 200 times."""
    _, out = folders(tmp_path)
    code = ("import sys\nprint('ready', flush=True)\nwhile True:\n"
            "    assert open(sys.argv[1]).read() in ('old', 'new')\n")
    with subprocess.Popen([sys.executable, "-c", code, out / "a"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as looking:
        assert looking.stdout.readline() == "ready\n"
        for _ in range(200):
            shutil.rmtree(tmp_path / "staging", ignore_errors=True)
            new = tmp_path / "staging" / "model"
            new.mkdir(parents=True)
            (new / "a").write_text("new")
            place_folder(new, out)
        time.sleep(0.1)
        assert looking.poll() is None, looking.stderr.read()
        looking.kill()
    assert (out / "a").read_text() == "new"


def test_a_system_that_cannot_exchange(tmp_path, monkeypatch):
    monkeypatch.setattr(placing, "_exchange", lambda one, other: False)
    new, out = folders(tmp_path)
    place_folder(new, out)
    assert (out / "a").read_text() == "new" and (new.with_name("replaced") / "a").exists()


@pytest.mark.parametrize("failing", ["tokenizer.model", "m"])
def test_no_model_beside_another_s_tokenizer(failing, tmp_path, monkeypatch):
    """Where a rename fails the old pair is not mixed with the new one."""
    folder = tmp_path / "staging" / "model"
    folder.mkdir(parents=True)
    for name in ("m", "tokenizer.model"):
        (folder / name).write_text("new")
        (tmp_path / name).write_text("old")
    replace = placing.Path.replace

    def fails(self, target):
        if self.name == failing:
            raise OSError(5, "planted")
        return replace(self, target)
    monkeypatch.setattr(placing.Path, "replace", fails)
    with pytest.raises(OSError, match="planted"):
        place_files(folder, tmp_path / "m")
    assert {(tmp_path / n).read_text() for n in ("m", "tokenizer.model")} == {"old"}


def test_equal_files_stay(tmp_path):
    """A tokenizer that is there already is not touched, its model is never away."""
    folder = tmp_path / "staging" / "model"
    folder.mkdir(parents=True)
    shutil.copy(SHIPPED / "stories-llama2" / "tokenizer.model", folder)
    shutil.copy(SHIPPED / "stories-llama2" / "tokenizer.model", tmp_path)
    (folder / "m").write_text("new")
    (tmp_path / "m").write_text("old")
    before = (tmp_path / "tokenizer.model").stat().st_ino
    place_files(folder, tmp_path / "m")
    assert (tmp_path / "tokenizer.model").stat().st_ino == before
    assert (tmp_path / "m").read_text() == "new"
