"""Measures how long `kernelyard serve` takes until /health answers, beyond reading the weights.

    python tools/serving/ready.py [--backend NAME] [--limit SECONDS] [MODEL ...]

A model that is `random:SHAPE...` is written to a folder first. One start fills the caches of
compiled kernels and of the file; the best of three more counts. Reading the weights is one pass
over the file's bytes into memory. Where others use the machine, the seconds of the CPU say more
than those of the clock. Exit code 1: a start takes more than 5 seconds beyond the weights.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

STARTS, LIMIT, PATIENCE = 3, 5.0, 300  # seconds
MODELS = ("random:qwen2.5-0.5b:bf16", "random:llama3.2-1b:bf16")


def folder(model: str, temporary: Path) -> Path:
    """Return a folder that holds a model."""
    if not model.startswith("random:"):
        return Path(model)
    made = temporary / model.split(":")[1]
    subprocess.run([sys.executable, "-m", "models.export", "--model", model, "--to", "hf", "--out",
                    str(made), "--no-verify"], check=True, stdout=subprocess.DEVNULL)
    return made


def reading(path: Path) -> tuple[float, float]:
    """Return the GB of a folder's weights, and the seconds in which they are read from the cache of
    the file system."""
    files, least = list(path.glob("*.safetensors")), float("inf")
    buffer = bytearray(1 << 24)
    for _ in range(STARTS):
        start = time.perf_counter()
        for file in files:
            with file.open("rb", buffering=0) as data:
                while data.readinto(buffer):
                    pass
        least = min(least, time.perf_counter() - start)
    return sum(file.stat().st_size for file in files) / 1e9, least


def start(path: Path, backend: str) -> tuple[float, float]:
    """Return the seconds until a server answers /health, and those of the CPU of all of it."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "models.serve", str(path), "--port", "0", "--backend", backend],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if " at http://" not in line:
        raise SystemExit(f"the server of {path} does not start")
    url = line.split(" at ")[1].strip()
    while time.perf_counter() - begun < PATIENCE:
        try:
            if httpx.get(f"{url}/health", timeout=PATIENCE, trust_env=False).status_code == 200:
                break
        except httpx.TransportError:
            time.sleep(0.01)
    taken = time.perf_counter() - begun
    process.send_signal(signal.SIGTERM)
    _, _, used = os.wait4(process.pid, 0)
    return taken, used.ru_utime + used.ru_stime


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("models", nargs="*", default=MODELS, metavar="MODEL")
    p.add_argument("--backend", default="cpu_numba,cpu_numpy")
    p.add_argument("--limit", type=float, default=LIMIT)
    args = p.parse_args()
    late = False
    print("| model | weights | reading them | until /health answers | of that, CPU | beyond the "
          "weights |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for model in args.models:
            path = folder(model, Path(temporary))
            start(path, args.backend)
            taken, used = min(start(path, args.backend) for _ in range(STARTS))
            size, read = reading(path)
            print(f"| {model} | {size:.2f} GB | {read:.1f} s | {taken:.1f} s | {used:.1f} s | "
                  f"{taken - read:.1f} s |", flush=True)
            late |= taken - read > args.limit
    return int(late)


if __name__ == "__main__":
    sys.exit(main())
