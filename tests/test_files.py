"""Checks that files are never there by half."""

import errno
import os

import pytest

from core.files import whole_file, write_whole


def test_text_and_bytes_arrive_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a.json"
    write_whole(path, "ä\n")
    assert path.read_bytes() == "ä\n".encode()
    write_whole(path, b"two")
    assert path.read_bytes() == b"two" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(),
                                   ValueError("x")])
def test_a_failure_leaves_the_old_file(error, tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(type(error)), whole_file(path) as file:
        file.write(b"ne")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_names_the_file(tmp_path):
    (tmp_path / "a").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: .*a'$"):
        write_whole(tmp_path / "a", b"1")
    with pytest.raises(OSError, match=r"full.*b'$"), whole_file(tmp_path / "b"):
        raise OSError(errno.ENOSPC, "full")


def test_the_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append("fsync") or sync(file))
    monkeypatch.setattr(type(tmp_path), "replace",
                        lambda self, to: done.append("replace") or replace(self, to))
    write_whole(tmp_path / "a", b"1")
    assert done == ["fsync", "replace"]


@pytest.mark.skipif(os.name != "posix", reason="needs links and devices")
def test_links_and_devices_stay_what_they_are(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    write_whole(link, "through")
    assert link.is_symlink() and target.read_text() == "through"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, "piped")
    assert os.read(reader, 9) == b"piped" and pipe.is_fifo()
    os.close(reader)


def test_permissions_are_the_users_and_a_long_name_fits(tmp_path):
    path, plain = tmp_path / ("n" * 255), tmp_path / "plain"
    plain.touch()
    write_whole(path, b"1")
    assert path.stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("where", ["missing/a", "."])
def test_what_cannot_be_written_is_an_oserror(where, tmp_path):
    with pytest.raises(OSError):
        write_whole(tmp_path / where, b"1")
    assert list(tmp_path.iterdir()) == []


def test_a_fifo_that_nobody_reads_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="No such device or address"):
        write_whole(tmp_path / "fifo", b"x")


@pytest.mark.parametrize("path", ["/", "a\0b"])
def test_names_that_no_file_has(path):
    with pytest.raises(OSError, match="no file can have this name"):
        write_whole(path, b"x")
