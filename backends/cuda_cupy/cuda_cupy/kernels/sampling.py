"""Binds argmax, sample, and what surrounds them: adjust_logits and log_probs."""

from core import Call, TensorSpec, cuda, f32, i32
from cuda_cupy.arrays import counters
from cuda_cupy.kernels.declare import FLOATS, kernels
from cuda_cupy.launch import c_type, launch

_THREADS = 256
_ELEMENTS = 8  # that a thread looks at before more blocks pay


def _parts(width):
    return max(1, min(128, -(-width // (_THREADS * _ELEMENTS))))


def _best_of_parts(call: Call) -> TensorSpec:
    return TensorSpec((call.dims["S"], _parts(call.dims["V"]), 2), i32)


@kernels.implements("argmax", dtypes={"A": FLOATS}, workspace=_best_of_parts, batch_invariant=True)
def argmax(logits, out, *, workspace):
    rows, width = logits.shape
    return launch("argmax.cu", "argmax", (_parts(width), rows), _THREADS,
                  (logits, out, workspace, counters(rows), width), defines={"A": c_type(logits)})


def _probabilities(call: Call) -> TensorSpec:
    return TensorSpec((call.dims["S"], call.dims["V"], 2), f32)  # float64


@kernels.implements("sample", dtypes={"A": FLOATS}, workspace=_probabilities, batch_invariant=True)
def sample(logits, temperature, top_k, top_p, min_p, penalty, seeds, positions, seen, out, *,
           workspace):
    rows, width = logits.shape
    return launch("sample.cu", "sample", (rows,), 1024,
                  (logits, temperature, top_k, top_p, min_p, penalty, seeds, positions, seen, out,
                   workspace, width), defines={"A": c_type(logits)})


_TILE = 4096  # logits of a block of cuda/adjust_logits.cu


@kernels.implements("adjust_logits", dtypes={"A": FLOATS}, batch_invariant=True)
def adjust_logits(logits, starts, ids, penalties, add, mask, out):
    rows, width = logits.shape
    return launch("adjust_logits.cu", "adjust_logits", (cuda.cover(width, _TILE), rows), _THREADS,
                  (logits, starts, ids, penalties, add, mask, out, width, cuda.cover(width, 32)),
                  defines={"A": c_type(logits), "ALIGNED": int(width * logits.itemsize % 16 == 0)})


@kernels.implements("log_probs", dtypes={"A": FLOATS}, batch_invariant=True)
def log_probs(logits, token, chosen, rank, top_ids, top, *, n):
    rows, width = logits.shape
    return launch("log_probs.cu", "log_probs", (rows,), 1024,
                  (logits, token, chosen, rank, top_ids, top, width, n),
                  defines={"A": c_type(logits)})
