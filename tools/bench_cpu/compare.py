"""Decode and prefill speed of cpu_numba beside cpu_numpy, at published models' shapes.

    python tools/bench_cpu/compare.py [--shapes tinyllama-1.1b llama3.2-1b qwen2.5-0.5b]
        [--weights f32 bf16 int8 int4] [--layers N] [--prompt 128] [--rounds 5] [--seconds 1.0]

The weights are random: speed does not depend on them. The two backends share them and take turns in
one process; medians are printed, with the share of the read bandwidth that the faster backend's own
probe reached in the same process, and the largest difference of the logits relative to the largest
logit. `models.bench` holds every kernel to the float64 definition; this is about ratios.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass, field, replace

import numpy as np

from core.registry import default_registry
from core.tensor import Array
from models.builder import INV_FREQ
from models.loading import open_checkpoint
from models.model import Model
from models.setting import Options
from models.shapes import SHAPES, random_checkpoint

BACKENDS = ("cpu_numpy", "cpu_numba")
#: what is measured -> (dtype of the checkpoint, scheme of its projections)
WEIGHTS = {"f32": ("f32", None), "bf16": ("bf16", None), "f16": ("f16", None),
           "int8": ("bf16", "int8"), "int4": ("bf16", "int4")}
CLOSE = 1e-4  # of the largest logit: float32 sums in another order, through every layer
CONTEXT = 2048


@dataclass
class Side:
    """One backend's model and what was measured of it."""

    model: Model
    decode: list[float] = field(default_factory=list)
    prefill: list[float] = field(default_factory=list)

    def take_turn(self, ids: list[int], seconds: float) -> None:
        """Prefill, then decode for that long; note tokens a second of each."""
        session = self.model.session
        session.truncate(0)
        start = time.perf_counter()
        session.prefill(ids)
        self.prefill.append(len(ids) / (time.perf_counter() - start))
        rest()
        steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            session.step()
            steps += 1
        self.decode.append(steps / (time.perf_counter() - start))
        rest()

    def logits(self, ids: list[int]) -> Array:
        """Of the prompt's last token, and of a decode step after it."""
        session = self.model.session
        prompt = self.model.logits(ids)[-1]
        session.truncate(0)
        session.prefill(ids)
        session.step()
        return np.stack([prompt, session.decoder.output("logits").numpy()[0]])


def rest() -> None:
    """The threads of BLAS and of Numba wait for work in busy loops, in each other's way."""
    time.sleep(0.1)


def open_sides(shape: str, kind: str, layers: int | None) -> dict[str, Side]:
    registry = default_registry()
    stored, scheme = WEIGHTS[kind]
    checkpoint = random_checkpoint(shape, stored, layers=layers)
    sides: dict[str, Side] = {}
    for backend in BACKENDS:
        model = open_checkpoint(checkpoint, Options(f"{backend},cpu_numpy" if backend != "cpu_numpy"
                                                    else backend, quantize=scheme,
                                                    max_context=CONTEXT), registry)
        sides[backend] = Side(model)
        weights = model.session.weights
        shared = {n: a for n, a in weights.arrays.items() if n != INV_FREQ}
        checkpoint, scheme = replace(checkpoint, arrays=shared, quantized=weights.quantized), None
    return sides


def bytes_of_a_token(model: Model) -> int:
    """The matrices that a decode step multiplies by."""
    read = {v.root.name for n in model.session.decoder.graph.nodes
            if n.op.name in ("linear", "quantized_linear") for v in n.inputs.values()
            if v is not None and v.kind == "weight"}
    return sum(model.session.weights.arrays[name].nbytes for name in read)


def compare(shape: str, kind: str, args: argparse.Namespace, limit: float) -> bool:
    """Print one line. Returns whether the two agree."""
    sides = open_sides(shape, kind, args.layers)
    ids = np.random.default_rng(5).integers(5, 20000, args.prompt).tolist()
    for _ in range(args.rounds + 1):
        for side in sides.values():
            side.take_turn(ids, args.seconds)
    logits = [side.logits(ids) for side in sides.values()]
    error = float(np.abs(logits[0] - logits[1]).max() / np.abs(logits[0]).max())
    good = error < CLOSE  # not so for NaN
    middle = statistics.median  # without the first turn, which reads the weights in
    (d0, d1), (p0, p1) = ([middle(getattr(s, what)[1:]) for s in sides.values()]
                          for what in ("decode", "prefill"))
    models = [side.model for side in sides.values()]
    rate = d1 * bytes_of_a_token(models[1])
    print(f"{shape:15s} {kind:5s} {models[0].config.layers:3d} {rate / d1 / 1e9:5.2f} | "
          f"{d0:7.2f} {d1:7.2f} {d1 / d0:6.2f}x {rate / 1e9:6.1f} {rate / limit:5.0%} | "
          f"{p0:6.0f} {p1:6.0f} {p1 / p0:6.2f}x | {error:7.1e} {'ok' if good else 'WRONG'} | "
          f"{' '.join(m.ledger.hash for m in models)}", flush=True)
    for model in models:
        model.close()
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=sorted(SHAPES),
                        default=["tinyllama-1.1b", "llama3.2-1b", "qwen2.5-0.5b"])
    parser.add_argument("--weights", nargs="+", choices=sorted(WEIGHTS),
                        default=["f32", "bf16", "int8", "int4"])
    parser.add_argument("--layers", type=int, help="as many layers instead of all")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of the prompt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of decoding in each turn")
    args = parser.parse_args()
    registry = default_registry()
    for backend in BACKENDS:
        print(f"{backend}: {registry.backend(backend).describe()}")
    limit = max(registry.backend(b).read_bandwidth() or 0.0 for b in BACKENDS)
    print(f"read bandwidth {limit / 1e9:.1f} GB/s; medians of {args.rounds} turns, prompt of "
          f"{args.prompt} tokens\nshape, weights, layers, GB a token | decode tokens/s: numpy, "
          "numba, ratio, GB/s, of the bandwidth | prefill tokens/s: numpy, numba, ratio | logits "
          "differ by | ledgers")
    fine = [compare(s, w, args, limit) for s in args.shapes for w in args.weights]
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
