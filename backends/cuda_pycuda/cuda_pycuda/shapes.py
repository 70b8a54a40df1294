"""Chooses how products are spread over warps and blocks, by their shapes alone."""

from __future__ import annotations

from dataclasses import dataclass

from core import TensorSpec, cuda, f32

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


@dataclass(frozen=True)
class Tiles:
    """Holds how a product of many rows is cut into tiles: the grid, each block's share of K in
    `columns`, and the float32 sums by which blocks of one tile add up theirs (split.cuh)."""

    tile: tuple[int, int]
    grid: tuple[int, int, int]
    columns: int

    @property
    def sums(self) -> int:
        across, down, parts = self.grid
        return across * down * parts * self.tile[0] * self.tile[1] if parts > 1 else 0

    @property
    def workspace(self) -> TensorSpec:
        return TensorSpec((max(1, self.sums),), f32)


_SIMT_COST = {128: 4, 64: 5, 32: 6}  # of a row of x in gemm.cu, by the rows of a tile
_LEAST = 256                         # columns of a block: below, its sums cost more than they save


def _split(tile: tuple[int, int], tokens: int, rows: int, width: int, blocks: int) -> Tiles:
    """Split K between blocks where tiles alone are fewer than `blocks`."""
    across, down = cuda.cover(rows, tile[1]), cuda.cover(tokens, tile[0])
    parts = max(1, min(blocks // max(1, across * down), width // _LEAST))
    columns = 32 * cuda.cover(cuda.cover(width, 32), parts)
    return Tiles(tile, (across, down, cuda.cover(width, columns)), columns)


def simt(tokens: int, rows: int, width: int, multiprocessors: int) -> Tiles:
    """Choose the tiles of gemm.cu: those of 128 rows of x multiply most for each load and have a
    multiprocessor to themselves; small ones leave less of a tile empty."""
    tile = min(_SIMT_COST, key=lambda t: cuda.cover(tokens, t) * t * _SIMT_COST[t])
    return _split((tile, 128), tokens, rows, width,
                  multiprocessors if tile == 128 else 2 * multiprocessors)
