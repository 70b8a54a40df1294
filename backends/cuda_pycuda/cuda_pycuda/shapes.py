"""Chooses how products with one row of x are spread over warps, by their shapes alone."""

from __future__ import annotations

WARPS = 8            # of a block of gemv.cu, which share a staged x
_IN_FLIGHT = 8       # 16-byte pieces that a lane has on their way
_SHARED = 48 * 1024  # bytes of shared memory that a block has without asking for more
_STAGED = 24 * 1024  # bytes of x, in whole laps, up to which x.cuh copies it there
_SUMS = 256          # bytes of shared memory by which a block adds up a norm
NORM_BYTES = _STAGED - 4096  # of rows that it makes there: a lap is up to 4 KB


def one_row(laps: int, x_bytes: int | None, *, lap_bytes: int = 512, rows: int = 1,
            ) -> dict[str, int]:
    """Choose ROWS, DEPTH, WARPS and STAGED of gemv.cu and quantized_gemv.cu.

    x_bytes    of x in whole laps; None if it cannot be staged
    lap_bytes  of a row that a warp holds for a lap
    rows       that a warp takes: 2 for a row each of two matrices

    Measured on an H100 over 4 to 16 warps, 1 to 4 rows and 4 to 16 pieces: a row a warp is as fast
    as several, and eight warps with eight pieces each are within 2% of the best of each matrix.
    """
    staged = x_bytes if x_bytes is not None and x_bytes <= _STAGED else 0
    room = (_SHARED - _SUMS - staged) // (WARPS * rows * lap_bytes)
    return {"ROWS": rows, "DEPTH": min(laps, _IN_FLIGHT // rows, room), "WARPS": WARPS,
            "STAGED": int(staged > 0)}


def tile(tokens: int, rows: int, multiprocessors: int, *, largest: int = 128) -> dict[str, int]:
    """Choose TILE_T and TILE_N of gemm_mma.cu: large tiles read less, small ones reach every
    multiprocessor."""
    sides = [(t, n) for t, n in ((128, 128), (64, 128), (64, 64)) if t <= largest]
    for t, n in sides:
        if -(-tokens // t) * -(-rows // n) >= multiprocessors:
            return {"TILE_T": t, "TILE_N": n}
    return {"TILE_T": sides[-1][0], "TILE_N": sides[-1][1]}
