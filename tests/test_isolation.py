"""The notes of a process that works, and what the one that waits makes of them."""

import importlib
import signal
import time
from importlib.metadata import EntryPoint

import pytest

from core import isolation
from core.errors import OptionError
from core.installed.loader import Plugins
from core.installed.registry import Registry
from core.isolation import Note, Notes, Watch, check_limit, ending

NOTE = Note("layers.0.attention (attention), x:fast (dist 1), T=1", "launch", "/x/", "x:fast")


@pytest.fixture
def notes(tmp_path):
    return Notes.create(tmp_path)


def test_the_other_process_reads_what_this_one_writes(notes):
    writer = Notes(notes.path)
    assert notes.told("killed by signal 11") == ("the process killed by signal 11 before a kernel "
                                                 "was called")
    writer.enter(NOTE.encoded())
    assert notes.calls == 1 and notes.note == NOTE
    assert notes.told("killed by signal 11") == f"{NOTE.who}: killed by signal 11"
    assert notes.told("killed by signal 6 (SIGABRT)") == (
        f"{NOTE.who}: killed by signal 6 (SIGABRT); it or a kernel before it damaged the process")
    writer.leave()
    assert notes.calls is None and "between two calls; the last call was launch of " in notes.told(
        "killed by signal 11")
    writer.end()
    assert notes.ended and "at the end; the last call" in notes.told("killed by signal 6")


def test_it_says_what_and_where(notes):
    notes.enter(Note(NOTE.who, "bind", "/x/", "x:fast").encoded())
    notes.lines.write_text('Fatal Python error: Segmentation fault\n\n  File "/y/ctypes.py", line '
                           '5 in f\n  File "/x/k.py", line 7 in bind\n  File "/x/k.py", line 9 in')
    assert notes.told("ended") == f"{NOTE.who}: ended in bind, at /x/k.py:7"


def test_a_long_note_is_whole(notes):
    long = Note("n" * 20_000, "launch", "/x/", "x:fast")
    notes.enter(long.encoded())
    assert notes.note.kernel == "x:fast" and 1000 < len(notes.note.who) < 8000
    assert "n" in notes.told("ended")


def test_a_call_is_late_and_a_row_of_calls_is_not(notes):
    watch = Watch(notes, 0.05)
    for _ in range(4):
        notes.enter(NOTE.encoded())
        assert not watch.late()
        time.sleep(0.02)
        notes.leave()
        assert not watch.late()
    notes.enter(NOTE.encoded())
    assert not watch.late()
    time.sleep(0.1)
    assert watch.late()


def test_limits():
    assert check_limit(None, False) == check_limit(None, True) == isolation.TIMEOUT_S
    assert check_limit(0.5, True) == 0.5
    for limit, isolate in ((1, False), (0, True), (-1, True), (float("nan"), True)):
        with pytest.raises(OptionError, match="--step-timeout"):
            check_limit(limit, isolate)


def test_endings():
    assert ending(0) == "ended Python with exit code 0"
    assert ending(-signal.SIGTERM) == f"killed by signal {signal.SIGTERM.value} (SIGTERM)"
    assert ending(-250) == "killed by signal 250"


def test_what_starts_is_named_and_has_more_time(notes, monkeypatch):
    monkeypatch.setattr(isolation, "active", notes)
    monkeypatch.setattr(isolation, "START_S", 0.3)
    watch = Watch(notes, 0.05)
    with isolation.starting("plugin slow (kernelyard-slow 1.0)", "import"):
        assert not watch.late()
        time.sleep(0.1)
        assert not watch.late() and watch.limit == 0.3
        assert notes.told("ended") == "plugin slow (kernelyard-slow 1.0): ended in import"
        time.sleep(0.3)
        assert watch.late()
    assert not watch.late() and notes.told("ended") == (
        "the process ended after import of plugin slow (kernelyard-slow 1.0)")


def test_imports_and_hooks_of_plugins_are_noted(notes, monkeypatch, tmp_path):
    (tmp_path / "telling.py").write_text(
        "from core import hookimpl, isolation\n"
        "KERNELYARD_API, said = 2, [isolation.active.note.what]\n"
        "@hookimpl\ndef register_backends(register):\n"
        "    said.append(isolation.active.note)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(isolation, "active", notes)
    Registry(Plugins([EntryPoint("telling", "telling", "kernelyard.plugins")]))
    imported, hook = importlib.import_module("telling").said
    assert imported == "import" and (hook.who, hook.what, hook.kernel) == (
        "plugin telling (telling)", "register_backends", "")
