"""How the products with one row of x are spread over warps: pure functions of their shapes."""

from __future__ import annotations

_WARPS = 4           # of a block of gemv.cu; small blocks even out the last wave
_IN_FLIGHT = 16      # 16-byte pieces that a lane has on their way
_FULL = 132 * 32     # warps that keep an H200 busy
_SHARED = 48 * 1024  # bytes of shared memory that a block has without asking for more
_STAGED = 24 * 1024  # bytes of x, in whole laps, up to which x.cuh copies it there
_SUMS = 256          # bytes of shared memory by which a block adds up a norm
NORM_BYTES = _STAGED - 4096  # of rows that it makes there: a lap is up to 4 KB
_LONG = 16 * 1024    # bytes of x from which more warps should share a copy


def one_row(rows: int, laps: int, x_bytes: int | None, *, lap_bytes: int = 512, pair: bool = False,
            ) -> dict[str, int]:
    """ROWS, DEPTH, WARPS and STAGED of gemv.cu and quantized_gemv.cu for a matrix of `rows` rows,
    or for two of them whose rows are taken in pairs.

    x_bytes    of x in whole laps; None if it cannot be staged
    lap_bytes  of a row that a warp holds for a lap

    Several rows a warp share x, which helps while there are warps enough; then as many laps are on
    their way as there are, or as the ring holds.
    """
    each = 2 if pair else next(n for n in (4, 2, 1) if n == 1 or rows >= n * _FULL)
    staged = x_bytes if x_bytes is not None and x_bytes <= _STAGED else 0
    warps = 2 * _WARPS if staged > _LONG else _WARPS
    room = (_SHARED - staged - _SUMS * pair) // (warps * each * lap_bytes)
    return {"ROWS": each, "DEPTH": min(laps, _IN_FLIGHT // each, room), "WARPS": warps,
            "STAGED": int(staged > 0), "STEPS": 1}


def blocks(rows: int, how: dict[str, int], *, pair: bool = False) -> int:
    """Blocks for all rows (pairs of rows)."""
    each = 1 if pair else how["ROWS"]
    return -(-rows // (each * how["WARPS"]))


def tile(tokens: int, rows: int, multiprocessors: int, *, largest: int = 128) -> dict[str, int]:
    """TILE_T and TILE_N of gemm_mma.cu: large tiles read less, small ones reach every
    multiprocessor."""
    sides = [(t, n) for t, n in ((128, 128), (64, 128), (64, 64)) if t <= largest]
    for t, n in sides:
        if -(-tokens // t) * -(-rows // n) >= multiprocessors:
            return {"TILE_T": t, "TILE_N": n}
    return {"TILE_T": sides[-1][0], "TILE_N": sides[-1][1]}
