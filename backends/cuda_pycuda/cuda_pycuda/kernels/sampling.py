"""Binds argmax, sample, and what surrounds them: adjust_logits and log_probs."""

from core import Call, TensorSpec, cuda, f32, i32
from cuda_pycuda.kernels.declare import FLOATS, kernels
from cuda_pycuda.launch import Counters, c_type, launch

_THREADS = 256
_EACH = 8  # logits of a thread before another block pays


def _parts(width):
    return max(1, min(64, cuda.cover(width, _THREADS * _EACH)))


@kernels.implements("argmax", dtypes={"A": FLOATS}, batch_invariant=True,
                    workspace=lambda call: TensorSpec((call.dims["S"], _parts(call.dims["V"]), 2),
                                                      i32))
def argmax(logits, out, *, workspace):
    rows, width = logits.shape
    return launch("argmax.cu", "argmax", (_parts(width), rows), _THREADS,
                  (logits, out, workspace, Counters(rows), width), defines={"A": c_type(logits)})


def _ranks(call: Call) -> TensorSpec:
    return TensorSpec((call.dims["S"], call.dims["V"]), f32)


@kernels.implements("sample", dtypes={"A": FLOATS}, workspace=_ranks, batch_invariant=True)
def sample(logits, temperature, top_k, top_p, min_p, penalty, seeds, positions, seen, out, *,
           workspace):
    rows, width = logits.shape
    return launch("sample.cu", "sample", (rows,), 1024,
                  (logits, temperature, top_k, top_p, min_p, penalty, seeds, positions, seen, out,
                   workspace, width), defines={"A": c_type(logits)})


@kernels.implements("adjust_logits", dtypes={"A": FLOATS}, batch_invariant=True)
def adjust_logits(logits, starts, ids, penalties, add, mask, out):
    rows, width = logits.shape
    size = logits.dtype.itemsize
    piece = 1 if width * size % 16 else 16 // size
    return launch("adjust_logits.cu", "adjust_logits",
                  (cuda.cover(width, _THREADS * piece), rows), _THREADS,
                  (logits, starts, ids, penalties, add, mask, out, width, cuda.cover(width, 32)),
                  defines={"A": c_type(logits), "PIECE": piece})


@kernels.implements("log_probs", dtypes={"A": FLOATS}, batch_invariant=True)
def log_probs(logits, token, chosen, rank, top_ids, top, *, n):
    rows, width = logits.shape
    return launch("log_probs.cu", "log_probs", (rows,), 1024,
                  (logits, token, chosen, rank, top_ids, top, width, n),
                  defines={"A": c_type(logits)})
