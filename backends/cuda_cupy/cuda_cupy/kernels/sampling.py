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


_RUN, _RUNS = 512, 8  # as in cuda/sample.cu


def _runs_and_candidates(call: Call) -> TensorSpec:
    width = call.dims["V"]  # three float64 a run, and one a logit
    return TensorSpec((call.dims["S"], 2 * width + 6 * cuda.cover(width, _RUN)), f32)


@kernels.implements("sample", dtypes={"A": FLOATS}, workspace=_runs_and_candidates,
                    batch_invariant=True)
def sample(logits, temperature, top_k, top_p, min_p, penalty, seeds, positions, seen, out, *,
           workspace):
    rows, width = logits.shape
    runs, defines = cuda.cover(width, _RUN), {"A": c_type(logits)}
    return cuda.sequence(
        launch("sample.cu", "sample_runs", (cuda.cover(runs, _RUNS), rows), 32 * _RUNS,
               (logits, temperature, penalty, seen, workspace, width, runs), defines=defines),
        launch("sample.cu", "sample", (1, rows), 512,
               (logits, temperature, top_k, top_p, min_p, penalty, seeds, positions, seen, out,
                workspace, width, runs), defines=defines))


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
