"""Starts servers for scripts: ours, whose processes can be looked at, and vLLM's."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

VLLM_PATIENCE = 900  # seconds in which vLLM may start


@dataclass
class Server:
    """Holds a running server: its address, and where it writes its log."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    @property
    def processes(self) -> dict[str, int]:
        """Return the ids of the process that answers and of the one that computes."""
        own = self.process.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        (engine,) = [int(pid) for pid in children
                     if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return {"server": own, "engine": engine}

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        text = httpx.get(f"{self.url}/metrics", timeout=60).text
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                   if line.startswith(f"kernelyard:{name}{{"))

    def idle(self, seconds: float = 60) -> bool:
        """Return whether nothing runs or waits and no block is held, within so many seconds."""
        end = time.monotonic() + seconds
        names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        while any(self.metric(name) for name in names):
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
        return True


@contextmanager
def serving(folder: Path, model: str, *options: str) -> Iterator[Server]:
    """Run a server on a free port until SIGTERM."""
    log = folder / "server.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "models.serve", model, "--port", "0", *options],
            stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if " at http://" not in line:
            raise SystemExit(f"the server does not start: {log.read_text()}")
        yield Server(process, line.split(" at ")[1].strip(), log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            process.kill()


@contextmanager
def vllm_serving(folder: Path, command: str, model: Path, name: str) -> Iterator[str]:
    """Run vLLM's server on the CPU, in float32, and yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "vllm.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [command, "serve", str(model), "--served-model-name", name, "--dtype", "float32",
             "--max-model-len", "512", "--max-num-seqs", "32", "--enforce-eager", "--host",
             "127.0.0.1", "--port", str(port)], stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1",
                 "VLLM_NO_USAGE_STATS": "1", "PYTHONPATH": ""})
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + VLLM_PATIENCE
    try:
        while not _healthy(url):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"vLLM does not start:\n{log.read_text()[-3000:]}")
            time.sleep(1)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the engine, a process of its own


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
