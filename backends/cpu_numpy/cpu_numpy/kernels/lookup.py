"""Looks up rows of tables that are kept in codes, and expands only these."""

import numpy as np

from cpu_numpy.kernels.declare import ROWS, kernels

_TOGETHER = 16  # rows expanded at a time: temporaries stay in cache
_FLOATS = "f32 f16 bf16"


@kernels.implements("quantized_embedding", dtypes={"Q": "i8 i4x2", "O": _FLOATS}, family=ROWS)
def quantized_embedding(ids, codes, scales, zeros, out, *, bits, group_size, columns):
    group = np.arange(columns) // group_size
    middle = np.float32(0 if bits == 8 else 8)

    def expand(rows):
        code = codes[rows] if bits == 8 else _nibbles(codes[rows])[:, :columns]
        code = code.astype(np.float32)
        code -= middle if zeros is None else zeros[rows][:, group]
        code *= scales[rows][:, group]
        return code
    return _by_rows(ids, out, expand)


@kernels.implements("block_embedding", dtypes={"O": _FLOATS}, family=ROWS)
def block_embedding(ids, codes, high, steps, scales, min_steps, minimums, out, *, bits, group_size,
                    block_size, columns):
    place = np.arange(columns)
    group, block = place // group_size, place // block_size
    shifts = np.arange(0, 8, bits - 4, dtype=np.uint8) if bits > 4 else None
    mask = np.uint8((1 << bits - 4) - 1)
    middle = np.float32(0 if min_steps is not None else 2 ** (bits - 1))

    def factors(step, small, rows):
        """Return what multiplies each code, or each minimum."""
        wide = step[rows].astype(np.float32)[:, block]
        return wide if small is None else wide * small[rows][:, group]

    def expand(rows):
        code = _nibbles(codes[rows])
        if high is not None:
            upper = high[rows].view(np.uint8)[..., None] >> shifts & mask
            code |= upper.reshape(code.shape) << 4
        code = code.astype(np.float32)
        code -= middle
        code *= factors(steps, scales, rows)
        if min_steps is not None:
            code -= factors(min_steps, minimums, rows)
        return code
    return _by_rows(ids, out, expand)


def _nibbles(packed):
    """Return two codes a byte, the low one first, as uint8."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)


def _by_rows(ids, out, expand):
    def launch():
        for first in range(0, len(ids), _TOGETHER):
            part = slice(first, first + _TOGETHER)
            np.copyto(out[part], expand(ids[part]), casting="unsafe")
    return launch
