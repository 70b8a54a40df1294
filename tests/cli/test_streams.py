"""Tests commands whose standard streams are closed, full, opened the wrong way, or left."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a shell, /dev/full")
CHAT = "run --chat --model stories-qwen2"
LATE = """
from models.cli.command import command
from models.cli.console import tell


@command
def main():
    with open("opened", "w") as file:
        tell("a message")
        print(file.fileno() > 2)
    return 0


raise SystemExit(main())
"""


def shell(line, folder):
    done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True,
                          timeout=120, env={**os.environ, "PY": sys.executable, "LATE": LATE})
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("closed", ["", "<&-", "2>&-", "<&- 2>&-"])
def test_no_file_gets_the_number_of_a_closed_stream(closed, tmp_path):
    done = shell(f'"$PY" -c "$LATE" {closed}', tmp_path)
    assert (done.returncode, done.stdout) == (0, "True\n")
    assert (tmp_path / "opened").read_text() == ""


@pytest.mark.parametrize(("command", "code", "error"), [
    ("run --prompt a --max-new-tokens 2", 0, "2>/dev/full"),
    ("run --prompt a --max-new-tokens 2", 0, "2> >(true)"), ("run --nope", 2, "2>/dev/full"),
    ("run --model /nowhere", 2, "2</dev/null"), ("", 2, "2>/dev/full")])
def test_a_message_that_is_lost_changes_nothing(command, code, error, tmp_path):
    done = shell(f'"$PY" -m kernelyard {command} {error}', tmp_path)
    assert done.returncode == code and done.stderr == ""
    assert done.stdout == ("a long\n" if code == 0 else "")


@pytest.mark.parametrize(("stdin", "code"), [("<&-", 0), ("0>/dev/null", 2)])
def test_a_chat_without_an_input(stdin, code, tmp_path):
    done = shell(f'"$PY" -m kernelyard {CHAT} {stdin}', tmp_path)
    assert done.returncode == code and done.stdout.strip() == ""
    assert ("error: " in done.stderr) == (code == 2)
