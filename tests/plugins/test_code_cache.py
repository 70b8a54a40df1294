"""Checks the cache of compiled kernels: what is damaged, foreign or unwritable costs time, and no
more."""

import errno
import os
import pathlib
import random
import sys

import pytest

from core import CodeCache

CODE = bytes(random.Random(0).randrange(256) for _ in range(300))
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs owners and permissions")
NOT_KEPT = "compiled kernels are not kept, so each start compiles them again: "


class Made:
    """Compiles, and counts how often."""

    def __init__(self, code=CODE):
        self.code, self.calls = code, 0

    def __call__(self):
        self.calls += 1
        return self.code


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def get(make, cache=None, made_of=("source",)):
    """Ask the cache as a new process does, unless given a cache."""
    return (cache or CodeCache("b")).get("kernel-sm_90", list(made_of), make)


def entry():
    found, = CodeCache("b").folder.iterdir()
    return found


def test_the_second_start_compiles_nothing(base):
    make = Made()
    assert get(make) == get(make) == CODE and make.calls == 1
    assert get(make, made_of=("source", "flag")) == CODE and make.calls == 2
    assert len(list(CodeCache("b").folder.iterdir())) == 2


def damages(stored):
    rng = random.Random(1)
    yield b""
    yield from (stored[:n] for n in (1, 31, 32, 33, len(stored) - 32, len(stored) - 1))
    yield stored + b"\0"
    yield stored[-32:]
    for at in (0, len(stored) - 1, *(rng.randrange(len(stored)) for _ in range(60))):
        yield stored[:at] + bytes([stored[at] ^ 1 << rng.randrange(8)]) + stored[at + 1:]


def test_a_damaged_entry_is_compiled_again(base, capsys):
    get(Made())
    path, stored = entry(), entry().read_bytes()
    for damaged in damages(stored):
        path.write_bytes(damaged)
        make = Made()
        assert get(make) == CODE and make.calls == 1
        assert path.read_bytes() == stored, "the good one takes its place"
    assert NOT_KEPT not in capsys.readouterr().err


def test_an_entry_under_another_name_is_not_taken(base):
    get(Made(b"one"), made_of=("1",))
    first = entry()
    get(Made(b"two"), made_of=("2",))
    second, = (p for p in first.parent.iterdir() if p != first)
    second.write_bytes(first.read_bytes())
    assert get(Made(b"two"), made_of=("2",)) == b"two"


def test_an_entry_of_no_code_is_a_miss(base):
    get(Made(b""))
    make = Made()
    assert get(make) == CODE and make.calls == 1


def test_an_entry_that_is_a_folder(base, capsys):
    get(Made())
    path = entry()
    path.unlink()
    path.mkdir()
    assert get(Made()) == CODE
    assert NOT_KEPT in capsys.readouterr().err


@POSIX
def test_our_folders_are_ours_alone(base):
    previous = os.umask(0)
    try:
        get(Made())
    finally:
        os.umask(previous)
    for folder in (base, base / "kernelyard", base / "kernelyard/b"):
        assert folder.stat().st_mode & 0o777 == 0o700


def unkept(capsys, reason):
    """Check that everything is compiled, each time, and that this is said once."""
    cache, make = CodeCache("b"), Made()
    for _ in range(3):
        assert get(make, cache) == CODE
    assert make.calls == 3 and (cache.hits, cache.misses) == (0, 3)
    said = capsys.readouterr().err
    assert said.count(NOT_KEPT) == 1 and reason in said, said
    assert said.count("compiling kernels for this GPU") == 1
    return said


@POSIX
@pytest.mark.parametrize("folder", ["kernelyard", "kernelyard/b"])
@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_in_which_others_may_write_is_not_used(base, folder, mode, capsys):
    get(Made(b"planted"))
    (base / folder).chmod(mode)
    capsys.readouterr()
    said = unkept(capsys, f"other users may write to {base / folder}; fix: chmod 700")
    assert "they are kept in" not in said
    assert entry().read_bytes().startswith(b"planted")


@POSIX
def test_a_folder_of_another_user_is_not_used(base, capsys, monkeypatch):
    get(Made(b"planted"))
    capsys.readouterr()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    unkept(capsys, f"{base / 'kernelyard'} belongs to user {os.getuid()}")


def test_a_file_in_the_folders_place(base, capsys):
    base.mkdir()
    (base / "kernelyard").write_text("")
    unkept(capsys, "File exists")


def test_no_home(monkeypatch, capsys):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def home():
        raise RuntimeError("Could not determine home directory.")
    monkeypatch.setattr(pathlib.Path, "home", home)
    unkept(capsys, "Could not determine home directory. Set HOME or XDG_CACHE_HOME.")
    assert CodeCache("b").folders() == []


def test_a_home_that_is_not_there(monkeypatch, capsys):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/proc/nonexistent")
    unkept(capsys, "/proc/nonexistent")
    assert CodeCache("b").folders() == []


def test_home_is_used_without_xdg(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    get(Made())
    assert CodeCache("b").folders() == [tmp_path / ".cache/kernelyard/b"]


def test_a_full_disk(base, capsys, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    unkept(capsys, "No space left on device")
    assert list((base / "kernelyard/b").iterdir()) == [], "no part is left"


@POSIX
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_still_read(base, capsys):
    get(Made())
    (base / "kernelyard/b").chmod(0o500)
    make = Made()
    assert get(make) == CODE and make.calls == 0
    unkept_once = CodeCache("b")
    assert get(make, unkept_once, ("other",)) == CODE
    assert NOT_KEPT in capsys.readouterr().err
    (base / "kernelyard/b").chmod(0o700)


@pytest.mark.parametrize("terminal", [False, True])
def test_compiling_is_told_once_and_on_a_terminal_kernel_by_kernel(terminal, base, monkeypatch,
                                                                    capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    cache = CodeCache("b")
    for text in ("one", "two", "one"):
        assert get(text.encode, cache, (text,)) == text.encode()
    said = capsys.readouterr().err
    assert said.count("compiling kernels for this GPU, once; they are kept in") == 1
    assert said.count("kernel-sm_90") == said.count("\x1b[K") == (2 if terminal else 0)
    assert (cache.hits, cache.misses) == (1, 2)
