"""Runs `kernelyard serve` for tests."""

import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx

#: joins contents with spaces, so that the shipped models, which are base models, chat; calls of
#: tools are written as Qwen writes them
TEMPLATE = ('{# <tool_call>{"name": <name>, "arguments": <object>}</tool_call> #}'
            "{% for m in messages %}{{ m.content }}{{ ' ' if not loop.last }}{% endfor %}"
            "{% for t in tools or [] %} {{ t.function.name }}{% endfor %}{{ end }}")


class Server:
    """Holds a running `kernelyard serve` and what it has said."""

    def __init__(self, process: subprocess.Popen, address: str, errors: Path) -> None:
        self.process, self.url, self._errors = process, address, errors

    @property
    def said(self) -> str:
        return self._errors.read_text()

    @property
    def engine_pid(self) -> int:
        """Return the id of the process that runs the engine."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for pid in children.read_text().split():
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
        raise AssertionError("the server has no engine")

    def metric(self, name: str) -> float:
        text = httpx.get(f"{self.url}/metrics", timeout=30).text
        lines = [line for line in text.splitlines() if line.startswith(f"kernelyard:{name}{{")]
        assert lines, f"no metric {name} in {text}"
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def idle(self, seconds: float = 20) -> None:
        """Wait until nothing runs and no block of the cache is held."""
        end = time.monotonic() + seconds
        names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        while any(self.metric(name) for name in names):
            assert time.monotonic() < end, {name: self.metric(name) for name in names}
            time.sleep(0.2)


@contextmanager
def serving(folder: Path, *options: str, model: str = "stories-llama2",
            env: dict[str, str] | None = None):
    """Run a server on a free port, from its first line to SIGTERM. `env`: its whole environment."""
    template, errors = folder / "template.jinja", folder / "stderr.txt"
    template.write_text(TEMPLATE)
    with errors.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "models.serve", model, "--port", "0",
             "--chat-template", str(template), *options],
            stdout=subprocess.PIPE, stderr=file, text=True, env=env)
    try:
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=lambda: lines.put(process.stdout.readline()), daemon=True).start()
        line = lines.get(timeout=120)
        assert " at http://" in line, errors.read_text()
        yield Server(process, line.split(" at ")[1].strip(), errors)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
