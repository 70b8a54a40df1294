"""Judges files that llama.cpp's own quantiser made: our logits beside expanded weights'.

    python tools/judges/quantized.py --llama-python PYTHON [--models NAME ...] [--types TYPE ...]

PYTHON belongs to an environment with llama-cpp-python and NumPy (llama_side.py); this one needs the
extra `gguf`. Each shipped model, and random ones of 896 and of 2,048 columns, are exported to
GGUF in f32 and quantised by llama.cpp. A row of the table says, as parts of the largest logit:

    expanded   how far our logits are from those of weights that the package gguf expands to f32
    llama.cpp  how far they are from llama.cpp's, which rounds activations to 8-bit codes

and what the matrices take: in the file, in our memory, and by the types in the file. Exit code 1
where `expanded` is over 2e-5.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from core.installed.registry import default_registry
from core.ops.quantized.layouts import stored_parts
from core.plan.weights import no_progress
from core.tensor.tensor import Array
from models.checkpoints.base import Checkpoint, read_checkpoint, shipped_models
from models.checkpoints.gguf.names import ROPE_FACTORS, to_huggingface
from models.checkpoints.gguf.writer import write_gguf
from models.checkpoints.lazy import abstract_arrays
from models.checkpoints.source import Source
from models.engine.load import open_checkpoint
from models.engine.options import LoadOptions

BOUND = 2e-5
COUNT = 48  # ids
REGISTRY = default_registry()
SIDE = Path(__file__).with_name("llama_side.py")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--llama-python", required=True, help="a Python that has llama-cpp-python")
    parser.add_argument("--models", nargs="+", help="names of these only, by how they begin")
    parser.add_argument("--types", nargs="+", default=["MOSTLY_Q4_K_M"])
    parser.add_argument("--backends", nargs="+", default=["cpu_numpy", "cpu_numba"])
    args = parser.parse_args()
    print("| model | type | tensors | bytes in the file, in memory | backend | expanded | "
          "llama.cpp |\n|---|---|---|---|---|---|---|")
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, path in exported(Path(folder), args.models):
            for kind in args.types:
                target = Path(folder) / f"{name}-{kind}.gguf"
                run(args.llama_python, "quantize", path, target, kind)
                worst = max(worst, judge(name, kind, target, args))
    return int(not worst <= BOUND)


def exported(folder: Path, wanted: list[str] | None) -> Any:  # noqa: ANN401 - an iterator
    """Yield names, and GGUF files in f32: shipped models, then random ones."""
    named = [(n, read_checkpoint(n, REGISTRY)) for n in shipped_models()]
    tokenizer = dict(named)["stories-llama2"].tokenizer  # llama.cpp loads no file without one
    for shape in ("qwen2.5-0.5b", "tinyllama-1.1b"):
        made = read_checkpoint(f"random:{shape}:f32:2", REGISTRY)
        named.append((f"{shape}, 2 layers", replace(made, tokenizer=tokenizer)))
    for name, checkpoint in named:
        if wanted and not name.startswith(tuple(wanted)):
            continue
        path = folder / f"{name}.gguf"
        write_gguf(Source(checkpoint, REGISTRY), path, "f32", no_progress)
        yield name, path


def run(python: str, *args: object) -> None:
    subprocess.run([python, str(SIDE), *map(str, args)], check=True)


def judge(name: str, kind: str, path: Path, args: argparse.Namespace) -> float:
    """Print a row a backend; return the largest difference from the expanded weights."""
    checkpoint, reader = read_checkpoint(path, REGISTRY), gguf.GGUFReader(path)
    size = checkpoint.config.size("vocab_size")
    ids = np.random.default_rng(3).integers(3, size, COUNT).tolist()
    Path(f"{path}.json").write_text(json.dumps(ids))
    run(args.llama_python, "logits", path, f"{path}.json", f"{path}.npy")
    theirs = np.load(f"{path}.npy")[:, :size]
    meant = logits(expanded(checkpoint, reader), "cpu_numpy", ids)
    parts = stored_parts(checkpoint.quantized)
    held = sum(a.nbytes for n, a in abstract_arrays(checkpoint.arrays).items() if n in parts)
    family = Source(checkpoint, REGISTRY).architecture
    multiplied = {to_huggingface(t.name, family): t for t in reader.tensors
                  if t.name != ROPE_FACTORS}
    multiplied.setdefault("lm_head.weight", multiplied["model.embed_tokens.weight"])
    blocks = [multiplied[name] for name in checkpoint.quantized]
    kinds = Counter(t.tensor_type.name for t in blocks)
    worst = 0.0
    for backend in args.backends:
        got = logits(checkpoint, backend, ids)
        far, other = difference(got, meant), difference(got, np.concatenate([theirs, theirs]))
        worst = max(worst, far)
        print(f"| {name} | {kind.removeprefix('MOSTLY_')} | "
              f"{', '.join(f'{n} {k}' for k, n in kinds.items())} | "
              f"{sum(int(t.n_bytes) for t in blocks):,}, {held:,} | {backend} | {far:.1e} | "
              f"{other:.1e} |", flush=True)
    return worst


def expanded(checkpoint: Checkpoint, reader: Any) -> Checkpoint:  # noqa: ANN401 - gguf's
    """Return the model with float32 weights that the package makes of the file's blocks."""
    family = Source(checkpoint, REGISTRY).architecture
    arrays = {to_huggingface(t.name, family): gguf.quants.dequantize(t.data, t.tensor_type)
              for t in reader.tensors if t.name != ROPE_FACTORS}
    return replace(checkpoint, arrays=arrays, quantized={})


def logits(checkpoint: Checkpoint, backend: str, ids: list[int]) -> Array:
    """Return float32 [2 ids, vocabulary]: of one prompt, then token by token."""
    chain = backend if backend == "cpu_numpy" else f"{backend},cpu_numpy"
    rows = []
    for chunk in (len(ids), 1):
        how = LoadOptions(chain, dtype="f32", max_context=64, chunk=chunk)
        with open_checkpoint(checkpoint, how, REGISTRY) as model:
            rows.append(model.logits(ids))
    return np.concatenate(rows)


def difference(a: Array, b: Array) -> float:
    """Return the largest difference, as a part of the largest logit."""
    return float(np.abs(a - b).max() / np.abs(b).max())


if __name__ == "__main__":
    sys.exit(main())
