"""AMX beside AVX-512: checks every kernel of cpu_numba on tiles, then times a layer's products.

    python tools/bench_cpu/amx.py [--rows 16,128,512] [--threads 1,4,8,16]
        [--weights bf16,int8,int4] [--layers 4] [--check-only]

Kernels are held to their float64 definition by the conformance suite's own judge, on its examples.
Then both kernels of a product multiply the matrices of some layers, so many that no cache keeps
them, with random weights. A line gives, for each count of threads, the milliseconds of a layer on
tiles, on AVX-512, and their ratio; the last column is the TFLOP/s of the tiles. Before them stands
what the machine itself does with more threads: multiplications in registers alone, which no
splitting of work can pass.
"""

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from core.conformance.cases import cases_of
from core.conformance.runner import run_case
from core.installed.registry import Registry
from core.ir.op import OPS
from core.plugins.kernel import Call, Kernel
from core.tensor.dtype import bf16, f32, i4x2, i8
from core.tensor.host import HostAllocator
from core.tensor.tensor import TensorSpec
from cpu_numba import compiling, machine
from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.simd import fma, splat, store
from cpu_numba.kernels.compiled.spread import on_threads

#: rows and columns of a layer's matrices
LAYERS = {"tinyllama-1.1b": [(2048, 2048)] * 2 + [(256, 2048)] * 2 + [(5632, 2048)] * 2
          + [(2048, 5632)],
          "llama3.2-1b": [(2048, 2048)] * 2 + [(512, 2048)] * 2 + [(8192, 2048)] * 2
          + [(2048, 8192)]}
#: op, the kernel on tiles, the one on AVX-512
KERNELS = {"bf16": ("linear", "linear_tiles", "linear_blocks"),
           "int8": ("quantized_linear", "quantized_tiles", "int8_blocks"),
           "int4": ("quantized_linear", "quantized_tiles", "int4_blocks")}
GROUP = 32
SPINS = 1 << 22  # of the loop that only multiplies


@njit(_nrt=False)
def spin(i: Any, out: Any, count: Any) -> None:  # noqa: ANN401 - Numba's types
    """Multiply and add in twelve chains of 16 lanes, `count` times each."""
    half = splat(np.float32(0.5))
    a, b, c, d, e, f = half, half, half, half, half, half
    g, h, k, m, n, p = half, half, half, half, half, half
    for _ in range(count):
        a, b, c = fma(a, half, half), fma(b, half, half), fma(c, half, half)
        d, e, f = fma(d, half, half), fma(e, half, half), fma(f, half, half)
        g, h, k = fma(g, half, half), fma(h, half, half), fma(k, half, half)
        m, n, p = fma(m, half, half), fma(n, half, half), fma(p, half, half)
    store(out, 16 * i, a + b + c + d + e + f + g + h + k + m + n + p)


@njit
def spin_all(out: Any, threads: Any, count: Any) -> None:  # noqa: ANN401 - likewise
    on_threads(spin, threads, False, (out, count))


def limits(threads: int) -> str:
    """Return the GFLOP/s of multiplications in registers."""
    numba.set_num_threads(threads)
    out = np.zeros(16 * threads, np.float32)
    spin_all(out, threads, 1 << 10)
    begun = time.perf_counter()
    spin_all(out, threads, SPINS)
    rate = 2 * 16 * 12 * SPINS * threads / (time.perf_counter() - begun) / 1e9
    return f"{threads} threads: {rate:,.0f} GFLOP/s of float32 in registers"


def check(registry: Registry) -> int:
    """Run every example that a kernel on tiles takes; returns how many are wrong."""
    wrong = 0
    for name, op in sorted({(name, op) for op, name, _ in KERNELS.values()}):
        for case in cases_of(find(registry, op, name)):
            kernel = find(registry, op, name)
            if kernel.refuses(case.call) is None:
                outcome = run_case(case, kernel, registry, case.expected, 2)
                wrong += not outcome.ok
                print(f"{'right' if outcome.ok else 'WRONG'} {case.id}: "
                      f"{outcome.used:.3f} of the tolerance" + ("" if outcome.ok else
                                                                f"\n{outcome}"), flush=True)
    return wrong


def find(registry: Registry, op: str, name: str) -> Kernel:
    return next(k for k in registry.kernels("cpu_numba", op) if k.name == name)


def bind(kernel: Kernel, x: Any, weights: Any, scales: Any, bits: int) -> Callable[[], object]:  # noqa: ANN401 - arrays
    """Bind the product of x with a matrix in bf16, or in codes of so many bits."""
    op, shape = OPS[kernel.op], weights.shape
    given: dict[str, Any] = dict.fromkeys(p.name for p in op.sig.params)
    specs = {**given, "x": TensorSpec(x.shape, bf16)}
    given["x"] = x
    if bits == 16:
        given["weight"], specs["weight"], attrs = weights, TensorSpec(shape, bf16), {}
    else:
        given |= {"codes": weights, "scales": scales}
        specs |= {"codes": TensorSpec(shape, i8 if bits == 8 else i4x2),
                  "scales": TensorSpec(scales.shape, f32)}
        attrs = {"bits": bits, "group_size": GROUP}
    attrs = op.complete(attrs)
    env = op.bind(specs, attrs)
    call = Call(op, specs, attrs, {k: d for k, d in env.dims.items() if isinstance(d, int)},
                env.dtypes)
    assert kernel.workspace is not None
    scratch = HostAllocator().allocate(4 * kernel.workspace(call).shape[0])
    return kernel.bind_to(call, {**given, "out": np.empty((len(x), shape[0]), np.uint16),
                                 "workspace": scratch.handle.view(np.float32)}, lambda: None)


def layers_of(model: str, kind: str, count: int) -> list[tuple[Any, Any]]:
    """Return matrices, as arrays of their bits, and scales."""
    bits = {"bf16": 16, "int8": 8, "int4": 4}[kind]
    rng = np.random.default_rng(0)
    # numbers about 1/64 as bf16; any bits as codes
    block = (rng.integers(0x3C00, 0x3D00, 1 << 20, np.uint16) if bits == 16
             else rng.integers(0, 255, 1 << 20, np.uint8))
    made = []
    for rows, columns in LAYERS[model] * count:
        weights = np.resize(block, (rows, columns * min(bits, 8) // 8))
        weights = weights.view(np.int8) if bits == 8 else weights
        made.append((weights, np.full((rows, columns // GROUP), 1 / 512, np.float32)))
    return made


def measure(registry: Registry, model: str, kind: str, args: argparse.Namespace) -> None:
    """Print a line for each count of tokens."""
    bits, matrices = {"bf16": 16, "int8": 8, "int4": 4}[kind], layers_of(model, kind, args.layers)
    op, *names = KERNELS[kind]
    flops = 2 * sum(n * k for n, k in LAYERS[model])
    for rows in args.rows:
        xs = {k: np.full((rows, k), 0x3F80, np.uint16) for _, k in LAYERS[model]}
        cells = []
        for threads in args.threads:
            numba.set_num_threads(threads)
            took = []
            for name in names:
                kernel = find(registry, op, name)
                runs = [bind(kernel, xs[s.shape[1] * GROUP], w, s, bits)
                        for w, s in matrices]
                compiling.settle()
                for run in runs[:len(LAYERS[model])]:
                    run()  # touches the scratch
                begun = time.perf_counter()
                for run in runs:
                    run()
                took.append((time.perf_counter() - begun) / args.layers)
            tiles, vectors = took
            cells.append(f"{1e3 * tiles:7.2f} {1e3 * vectors:8.2f} {vectors / tiles:5.1f}")
        print(f"{model:14} {kind:5} {rows:5} | {' | '.join(cells)} | "
              f"{flops * rows / tiles / 1e12:6.2f}", flush=True)


def numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=numbers, default=[16, 128, 512])
    parser.add_argument("--threads", type=numbers, default=[1, 4, 8, 16])
    parser.add_argument("--weights", type=lambda text: text.split(","), default=list(KERNELS))
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--check-only", action="store_true")
    args = parser.parse_args()
    print(f"{machine.name()}, Numba {numba.__version__}, Python {platform.python_version()}")
    facts = subprocess.run(["lscpu"], capture_output=True, text=True, check=False).stdout
    print(*(line for line in facts.splitlines() if line.startswith(
        ("Model name", "Thread(s)", "Core(s)", "L1d", "L2", "L3", "NUMA node(s)"))), sep="\n")
    most = numba.config.NUMBA_NUM_THREADS
    args.threads = [n for n in args.threads if n <= most]
    for threads in args.threads:
        print(limits(threads))
    if reason := machine.without_tiles():
        sys.exit(f"no kernel on tiles runs here: {reason}")
    registry = Registry()
    begun = time.perf_counter()
    if wrong := check(registry):
        sys.exit(f"{wrong} examples are wrong")
    print(f"all examples are right, {time.perf_counter() - begun:.0f} s")
    if args.check_only:
        return
    print(f"{'model':14} weights rows | " + " | ".join(
        f"{f'{n} threads: tiles, AVX-512, ratio':^22}" for n in args.threads) + " | TFLOP/s")
    for model in LAYERS:
        for kind in args.weights:
            measure(registry, model, kind, args)


if __name__ == "__main__":
    main()
