"""Tests what `kernelyard serve` says before a model is loaded."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import OptionError
from models.run import parser as run_parser
from models.serve import _keys, main, parser
from models.serving.http.listen import bind


def serve(*arguments: str, code: str = "") -> subprocess.CompletedProcess:
    program = ["-c", code] if code else ["-m", "models.serve"]
    return subprocess.run([sys.executable, *program, *arguments], capture_output=True, text=True,
                          timeout=120)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--host", "0.0.0.0"], "give --api-key-file FILE, or --no-auth"),
    (["--host", "::"], "give --api-key-file FILE, or --no-auth"),
    (["--port", "70000"], "--port 0 to 65535"),
    (["--host", "192.0.2.1", "--no-auth"], "cannot listen at --host 192.0.2.1"),
    (["--api-key-file", "nowhere"], "--api-key-file nowhere cannot be read"),
    (["--api-key-file", "/dev/null"], "cannot be read"),
    (["--chat-template", "nowhere", "--port", "0"],
     "chat template 'nowhere' is neither a file nor one of the model's"),
    (["no-such-model", "--port", "0"], "no-such-model"),
    (["--backend", "nothing", "--port", "0"], "nothing"),
    (["--max-context", "999999", "--port", "0"], "max-context"),
    (["--max-num-seqs", "0"], "max_num_seqs is 0"),
    (["--check-rate", "0.5"], "--check-rate goes with --check"),
    (["--check", "reference", "--check-rate", "2"], "expected a share above 0, at most 1"),
    (["--step-timeout", "0"], "--step-timeout 0: expected seconds, above 0")],
    ids=lambda v: str(v)[:40])
def test_one_line_and_exit_code_2(arguments, message, capfd):
    assert main(arguments) == 2
    said = capfd.readouterr()
    assert message in said.err and "Traceback" not in said.err and said.out == ""
    assert said.err.count("error: ") == 1


def test_files_of_keys(tmp_path, capsys):
    path = tmp_path / "keys"
    path.write_bytes(b"\xef\xbb\xbffirst\r\n\n  second \n")
    path.chmod(0o600)
    assert _keys(path) == ["first", "second"] and capsys.readouterr().err == ""
    path.chmod(0o604)
    assert _keys(path) == ["first", "second"]
    assert "every user of this machine can read the keys" in capsys.readouterr().err
    for wrong, said in ((b" \n", "has no key"), (b"\xff", "cannot be read"),
                        (b"a\n" * 600_000, "cannot be read")):
        path.write_bytes(wrong)
        with pytest.raises(OptionError, match=said):
            _keys(path)
    os.mkfifo(tmp_path / "fifo")
    for other in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(OptionError, match="expected a regular file"):
            _keys(other)


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = serve("--port", port)
    assert done.returncode == 2 and f"--port {port}" in done.stderr


def test_a_missing_extra_is_named():
    code = ("import sys, importlib.util as u; find = u.find_spec; "
            "u.find_spec = lambda name, *a: None if name == 'fastapi' else find(name, *a); "
            "from models.serve import main; sys.exit(main([]))")
    done = serve(code=code)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "'fastapi' is missing; fix: pip install 'kernelyard[serve]'" in done.stderr


def test_nothing_of_the_server_is_imported_early():
    code = ("import sys, models, models.__main__; "
            "print([m for m in ('fastapi', 'uvicorn', 'pydantic', 'starlette') "
            "if m in sys.modules])")
    assert serve(code=code).stdout.strip() == "[]"


def test_every_option_of_the_engine_is_there():
    options = {o for action in parser()._actions for o in action.option_strings}
    assert {"--max-num-seqs", "--max-num-batched-tokens", "--no-prefix-caching", "--kv-blocks",
            "--gpu-memory-utilization", "--max-queue", "--dtype", "--quantize", "--kernel",
            "--max-context", "--deterministic", "--lock"} <= options
    assert "--chunk" not in options, "the engine's steps are bounded by another"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_small_chunks_are_sent_at_once(host):
    """Asyncio sets TCP_NODELAY only where a socket states its protocol."""
    with bind(host, 0) as found:
        assert found.proto == socket.IPPROTO_TCP


def test_the_page_about_the_server(tmp_path):
    """Its Python is executed, and its table names every option of the server's own."""
    page = (Path(__file__).parents[3] / "docs/server.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    (tmp_path / "example.py").write_text(code)  # a file: the engine's process imports it again
    done = subprocess.run([sys.executable, str(tmp_path / "example.py")], capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0 and len(done.stdout.splitlines()) > 1, done.stderr
    shared = {o for a in run_parser()._actions for o in a.option_strings}
    own = {o for a in parser()._actions for o in a.option_strings if o.startswith("--")} - shared
    assert [o for o in sorted(own) if f"`{o}" not in page] == []
