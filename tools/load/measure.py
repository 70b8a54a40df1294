"""Measures what loading costs: memory and time to the first token of a random checkpoint, each run
in a process of its own with the file in the page cache.

    python tools/load/measure.py --format hf --stored f32 --folder /tmp/checkpoints

Peak RSS counts mapped pages of the file that were touched; RssAnon is memory that the process made.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

FORMATS = {"hf": "model.safetensors", "gguf": "model.gguf", "llama2c": "model.bin"}
PROMPT = [1, 2, 3, 4, 5]


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--format", choices=FORMATS, default="hf")
    p.add_argument("--stored", choices=("f32", "f16", "bf16", "int8"), default="f32")
    p.add_argument("--shape", default="tinyllama-1.1b")
    p.add_argument("--layers", type=int)
    p.add_argument("--folder", type=Path, required=True,
                   help="folder of the checkpoint; written if missing")
    p.add_argument("--backend", default="cpu_numpy")
    p.add_argument("--quantize", choices=("int8", "int4", "int4-symmetric"))
    p.add_argument("--before", type=Path, metavar="CHECKOUT",
                   help="another checkout, measured in turn with this one")
    p.add_argument("--repeat", type=int, default=3)
    p.add_argument("--child", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.child:
        print(json.dumps(measure(args.child, args.backend, args.quantize)))
        return
    path = written(args)
    file = path if path.is_file() else path / FORMATS["hf"]
    print(f"{file}: {file.stat().st_size / 2**20:,.0f} MiB", file=sys.stderr)
    roots = [root for root in (args.before, Path(__file__).parents[2]) if root is not None]
    for _ in range(args.repeat):
        with file.open("rb") as data:  # into the page cache
            while data.read(1 << 24):
                pass
        for root in roots:
            print(json.dumps({"checkout": root.resolve().name, "format": args.format,
                              "stored": args.stored, "quantize": args.quantize,
                              "backend": args.backend, "file_mib": round(
                                  file.stat().st_size / 2**20), **child(path, root, args)}),
                  flush=True)


def child(path: Path, root: Path, args: argparse.Namespace) -> dict[str, float]:
    """Measure in a new process, with the modules of a checkout."""
    found = [str(root.resolve()), *map(str, (root.resolve() / "backends").iterdir())]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(found)}
    done = subprocess.run(
        [sys.executable, __file__, "--folder", ".", "--child", str(path), "--backend",
         args.backend, *(["--quantize", args.quantize] if args.quantize else [])],
        check=True, capture_output=True, text=True, env=env)
    return json.loads(done.stdout)


def measure(path: str, backend: str, quantize: str | None) -> dict[str, float]:
    """Measure in this process: seconds since it began, MiB."""
    born = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC) + _started()
    watch = Watch()
    from models.engine.load import load
    imported = time.time()
    libraries = _status("RssFile")
    with load(path, backend=backend, max_context=512, quantize=quantize) as model:
        loaded, used = time.time(), time.process_time()
        first = model.generate(PROMPT, max_new_tokens=1).run().tokens
        done = time.time()
        watch.stop()
        assert len(first) == 1
        return {"import_s": round(imported - born, 2), "load_s": round(loaded - imported, 2),
                "first_token_s": round(done - loaded, 2), "total_s": round(done - born, 2),
                "load_cpu_s": round(used, 2), "peak_rss_mib": round(_status("VmHWM") / 1024),
                "peak_anon_mib": round(watch.anon / 1024),
                "peak_file_mib": round(watch.file / 1024), "libraries_mib": round(libraries / 1024),
                "pss_mib": round(_pss() / 1024),
                "weights_mib": round(model.session.weights.nbytes / 2**20)}


class Watch(threading.Thread):
    """Records the highest RssAnon and RssFile, in KiB, looked at every 5 ms."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.anon = self.file = 0
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(0.005):
            self.look()

    def look(self) -> None:
        self.anon = max(self.anon, _status("RssAnon"))
        self.file = max(self.file, _status("RssFile"))

    def stop(self) -> None:
        self._over.set()
        self.join()
        self.look()


def _status(field: str) -> int:
    """Return the value in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def _pss() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _started() -> float:
    """Return when this process began, in seconds of the monotonic clock."""
    ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    return int(ticks) / os.sysconf("SC_CLK_TCK")


def written(args: argparse.Namespace) -> Path:
    """Write the checkpoint unless it is there: random weights, a shipped vocabulary."""
    folder = args.folder / f"{args.shape}-{args.layers or 'all'}-{args.format}-{args.stored}"
    path = folder if args.format == "hf" else folder / FORMATS[args.format]
    if folder.exists():
        return path
    from core.installed.registry import default_registry
    from core.plan.weights import no_progress
    from models.checkpoints.base import read_checkpoint
    from models.checkpoints.quantization import Quantization
    from models.checkpoints.random import random_checkpoint
    from models.checkpoints.source import Source
    from models.checkpoints.targets import choose_target
    registry = default_registry()
    shipped = read_checkpoint("stories-llama2", registry)
    quantized = args.stored == "int8"
    made = random_checkpoint(args.shape, "f32" if quantized else args.stored, layers=args.layers)
    source = Source(replace(made, tokenizer=shipped.tokenizer, path=shipped.path), registry)
    target = choose_target(args.format, source, None if args.format == "llama2c" or quantized
                           else args.stored, Quantization.parse("int8" if quantized else None),
                           1 if args.format == "llama2c" and not quantized else None)
    folder.mkdir(parents=True)
    target.write(source, folder, FORMATS[args.format], no_progress)
    return path


if __name__ == "__main__":
    main()
