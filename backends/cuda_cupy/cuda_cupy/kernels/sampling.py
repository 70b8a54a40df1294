"""Binds argmax and sample."""

from core import Call, TensorSpec, f32, i32
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
