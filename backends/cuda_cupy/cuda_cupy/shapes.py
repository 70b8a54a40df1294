"""Chooses how a product with one row is spread over warps, by its shape alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

_SHARED = 44 * 1024  # bytes of x that fit into static shared memory beside the rest
_WARPS = 132 * 16    # about two blocks of eight warps on each multiprocessor of an H100
_SHARED_ROWS = 3500  # warps that a matrix of short rows should have


@dataclass(frozen=True)
class Spread:
    """Holds the numbers of cuda/stream.cuh: rows interleaved, steps one after the other, warps a
    row and a block."""

    rows: int = 1
    steps: int = 1
    split: int = 1
    warps: int = 8
    depth: int = 16

    @property
    def rows_a_block(self) -> int:
        return self.rows * self.steps * (self.warps // self.split)

    @property
    def defines(self) -> dict[str, int]:
        return {"ROWS": self.rows, "STEPS": self.steps, "KSPLIT": self.split, "WARPS": self.warps,
                "MAX_DEPTH": self.depth}


def spread(rows: int, row_bytes: int) -> Spread:
    """Arrange one matrix, or several that share x. The constants are an H200's, by
    tools/gpu/tune.py:

    several warps share a short row, so that more of the matrix is in flight before the wait;
    long rows take a deeper ring; smaller blocks fill the second wave where there is not quite one.
    """
    pieces = -(-row_bytes // 512)  # 16-byte loads a lane needs for a row
    if pieces <= 8:
        split = max(1, pieces // 4)
        while split < 4 and rows * split < _SHARED_ROWS:
            split *= 2
        return Spread(split=split)
    between_waves = _WARPS < rows < 2 * _WARPS
    return Spread(warps=4 if between_waves else 8, depth=24 if pieces >= 32 else 16)


def spread_pairs(rows: int, row_bytes: int) -> Spread:
    """Arrange two matrices of `rows` rows each, a row of both at a time."""
    pieces = 2 * -(-row_bytes // 512)
    if pieces >= 32:
        return Spread(rows=2, warps=16, depth=12)
    return Spread(rows=2, steps=_steps(2 * rows, pieces), depth=24 if pieces >= 16 else 16)


def _steps(rows: int, pieces: int) -> int:
    """Count the rows that a warp takes one after the other: up to 64 loads, while all warps have
    some."""
    steps = 1
    while steps < 8 and 2 * steps * pieces <= 64 and rows >= 2 * steps * _WARPS:
        steps *= 2
    return steps


def spread_codes(rows: int, row_bytes: int) -> Spread:
    """Arrange matrices of codes (cuda/qgemv.cu), whose loop has one step.

    Decoding takes registers, so shallow rings, which leave room for more warps, do better than deep
    ones.
    """
    pieces = -(-row_bytes // 512)
    if rows > 2 * _WARPS:
        return Spread(rows=2, depth=12)
    if pieces > 4:
        return Spread(warps=16, depth=12 if pieces > 12 else 8)
    return Spread(split=4 if rows <= _WARPS else 2, warps=16, depth=12)


def spread_blocks(rows: int, row_bytes: int) -> Spread:
    """Arrange a matrix of codes in blocks (cuda/block_gemv.cu): rings are half as deep as of other
    codes, as a piece has scales and upper bits beside it."""
    how = spread_codes(rows, row_bytes)
    return replace(how, warps=8, split=min(how.split, 2), depth=how.depth // 2)


def spread_code_pairs(rows: int, row_bytes: int) -> Spread:
    """Arrange two matrices of codes (cuda/qgate_up.cu): `rows` counts rows of both."""
    return Spread(rows=8 if row_bytes <= 2048 else 4, depth=8)


def whole_pieces(width: int, weight_bytes: int, x_bytes: int) -> str | None:
    """Return None if rows of `width` elements suit cuda/stream.cuh, else the reason."""
    step = 16 // weight_bytes
    if width % step or width < 256:
        return f"takes rows of 256 or more elements in whole 16-byte pieces of {step}, got {width}"
    if width * x_bytes > _SHARED:
        return f"takes rows of x of up to {_SHARED // x_bytes} elements, got {width}"
    return None
