"""Chooses how products are spread over warps and blocks, by their shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
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


@dataclass(frozen=True)
class Tiles:
    """Holds how a product of many rows is cut: tiles of (rows of x, outputs), the grid of blocks,
    and how many columns each block multiplies; split.cuh adds up the sums of one tile's blocks."""

    tile: tuple[int, int]
    grid: tuple[int, int, int]
    columns: int

    @property
    def sums(self) -> int:
        """Count the float32 sums that blocks leave to each other."""
        across, down, parts = self.grid
        return across * down * parts * self.tile[0] * self.tile[1] if parts > 1 else 0

    @property
    def workspace(self) -> TensorSpec:
        return TensorSpec((max(1, self.sums),), f32)

    @property
    def defines(self) -> dict[str, int]:
        return {"TILE_T": self.tile[0], "TILE_N": self.tile[1]}


@dataclass(frozen=True)
class _Family:
    """Estimates what a kernel's tiles cost.

    tiles   (rows of x, outputs): time of one product of a tile, beside the others
    start   columns in whose time a block begins and ends
    add_up  columns in whose time it hands its sums on
    """

    tiles: dict[tuple[int, int], float]
    start: int
    add_up: int


#: From counting: bytes to and from shared memory for each multiplication, and L2's for sums.
SIMT = _Family({(128, 128): 4, (64, 128): 5, (32, 128): 6}, 32, 40)
MMA = _Family({(128, 128): 4, (64, 128): 5, (64, 64): 6}, 64, 256)
MMA_CODES = _Family({t: c for t, c in MMA.tiles.items() if t[0] == 64}, 64, 256)
_PARTS = (1, 2, 3, 4, 6, 8, 12, 16)  # in which K is split
_LEAST = 128  # columns of a part


def tiles(family: _Family, tokens: int, rows: Sequence[int], width: int, multiprocessors: int, *,
          unit: int = 32, gated: bool = False) -> Tiles:
    """Choose the tiles of a product: large ones read less, small ones leave less of a tile empty;
    where both are fewer than multiprocessors, K is split.

    rows   of each matrix
    unit   columns that one block must have: whole strips, or groups of codes
    gated  a tile has rows of two matrices, for half as many outputs
    """
    found: list[tuple[float, Tiles]] = []
    for (t, n), cost in family.tiles.items():
        across = sum(cuda.cover(r, n // 2 if gated else n) for r in rows)
        down = cuda.cover(tokens, t)
        for parts in _PARTS:
            columns = unit * cuda.cover(cuda.cover(width, unit), parts)
            if parts > 1 and (columns < _LEAST or across * down >= multiprocessors):
                break
            grid = (across, down, cuda.cover(width, columns))
            added = family.add_up if grid[2] > 1 else 0
            turns = cuda.cover(across * down * grid[2], multiprocessors)
            found.append((turns * t * n * cost * (columns + family.start + added),
                          Tiles((t, n), grid, columns)))
    return min(found, key=lambda pair: pair[0])[1]
