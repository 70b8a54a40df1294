"""Row-wise kernels: implement embedding, norm, rope, softmax, add, swiglu, and what hands tokens to
the next step."""

from functools import partial

import numpy as np

from core import Call, TensorSpec, f32
from cpu_numpy.kernels.declare import ROWS, kernels


@kernels.implements("embedding", dtypes={"W": "f32 f16 bf16", "O": "f32 f16 bf16"},
                    family=ROWS)
def embedding(ids, table, out):
    if table.dtype == out.dtype:
        return partial(np.take, table, ids, axis=0, out=out, mode="clip")  # "raise" would buffer

    def launch():
        out[...] = table[ids]
    return launch


@kernels.implements("rms_norm", dtypes={"A": "f32", "W": "f32 f16 bf16"}, family=ROWS)
def rms_norm(x, weight, out, *, eps):
    wide = weight.astype(np.float32)  # D elements, once a plan
    size = np.float32(x.shape[-1])

    def launch():
        scale = np.einsum("td,td->t", x, x)
        scale /= size
        scale += np.float32(eps)
        np.sqrt(scale, out=scale)
        np.divide(x, scale[:, None], out=out)
        np.multiply(out, wide, out=out)
    return launch


@kernels.implements("add_rms_norm", dtypes={"A": "f32", "W": "f32 f16 bf16"}, family=ROWS)
def add_rms_norm(a, b, weight, sum, out, *, eps):
    norm = rms_norm(sum, weight, out, eps=eps)

    def launch():
        np.add(a, b, out=sum)
        norm()
    return launch


def _rope_scratch(call: Call) -> TensorSpec:
    t, h, d = (call.dims[n] for n in ("T", "H", "d"))
    return TensorSpec((t * (h + 2) * d,), f32)


@kernels.implements("rope", dtypes={"A": "f32"}, workspace=_rope_scratch, family=ROWS)
def rope(x, positions, inv_freq, out, *, interleaved, workspace):
    """Compute x * cos plus the term of each pair's other half, whole rows at a time."""
    tokens, heads, size = x.shape
    half = size // 2
    first, second = ((slice(0, None, 2), slice(1, None, 2)) if interleaved
                     else (slice(0, half), slice(half, None)))
    angles, sin = workspace[:tokens * size].reshape(2, tokens, half)
    cos = workspace[tokens * size:2 * tokens * size].reshape(tokens, 1, size)
    other = workspace[2 * tokens * size:].reshape(tokens, heads, size)

    def launch():
        np.multiply(positions[:, None], inv_freq, out=angles, dtype=np.float32, casting="unsafe")
        np.sin(angles, out=sin)
        np.cos(angles, out=angles)
        cos[:, 0, first] = cos[:, 0, second] = angles
        np.multiply(x[..., first], sin[:, None], out=other[..., second])
        np.negative(sin, out=sin)
        np.multiply(x[..., second], sin[:, None], out=other[..., first])
        np.multiply(x, cos, out=out)
        np.add(out, other, out=out)
    return launch


@kernels.implements("softmax", dtypes={"A": "f32"}, family=ROWS)
def softmax(x, out):
    def launch():
        np.subtract(x, np.max(x, axis=-1, keepdims=True), out=out)
        np.exp(out, out=out)
        np.divide(out, np.sum(out, axis=-1, keepdims=True), out=out)
    return launch


@kernels.implements("add", dtypes={"A": "f32"}, family=ROWS)
def add(a, b, out):
    return partial(np.add, a, b, out)


@kernels.implements("swiglu", dtypes={"A": "f32"}, family=ROWS)
def swiglu(gate, up, out):
    def launch():
        with np.errstate(over="ignore"):  # exp(-gate) = inf gives the right answer, 0
            np.negative(gate, out=out)
            np.exp(out, out=out)
            np.add(out, np.float32(1), out=out)
            np.divide(gate, out, out=out)
            np.multiply(out, up, out=out)
    return launch


@kernels.implements("advance", dtypes={}, family=ROWS)
def advance(token, block_table, ids, positions, slots, seq_lens, *, block_size):
    rows, width = np.arange(len(token)), block_table.shape[1]

    def launch():
        live = seq_lens > 0
        np.copyto(ids, token, where=live)
        np.add(positions, 1, out=positions, where=live)
        np.add(seq_lens, 1, out=seq_lens, where=live)
        block, offset = np.divmod(positions, block_size)
        owned = block_table[rows, np.minimum(block, width - 1)]
        slot = np.where((owned >= 0) & (block < width), owned * block_size + offset, -1)
        np.copyto(slots, slot, where=live, casting="same_kind")
    return launch


@kernels.implements("pick_ids", dtypes={}, family=ROWS)
def pick_ids(given, last, ids):
    def launch():
        place = -1 - given  # negative where the id is given
        known = (place >= 0) & (place < len(last))
        np.maximum(given, 0, out=ids)
        ids[known] = last[place[known]]
    return launch


@kernels.implements("put_tokens", dtypes={}, family=ROWS)
def put_tokens(token, places, last):
    def launch():
        inside = (places >= 0) & (places < len(last))
        last[places[inside]] = token[inside]
    return launch
