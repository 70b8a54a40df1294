// Tiles of queries: blocks that take ROWS queries of one sequence, of those that have LEAST to MOST of them.
#pragma once
#include "common.cuh"

struct Place { int sequence, start, stop; };  // its queries; the sequence is -1 where a block has none

// The grid counts the tiles of all sequences, each one's last tile, which sees most, first. Where a
// sequence has one tile at most, a block is a sequence. Every thread of a warp calls it.
template <int ROWS> __device__ __forceinline__ Place place(int tile, const int* starts, int sequences) {
    if (MOST <= ROWS) {
        const int start = starts[tile], stop = starts[tile + 1];
        return stop - start < LEAST || stop - start > MOST ? Place{-1, 0, 0} : Place{tile, start, stop};
    }
    for (int base = 0; base < sequences; base += 32) {
        const int lane = threadIdx.x % 32, s = base + lane;
        const int first = s < sequences ? starts[s] : 0, end = s < sequences ? starts[s + 1] : 0;
        const int count = end - first < LEAST || end - first > MOST ? 0 : (end - first + ROWS - 1) / ROWS;
        int upto = count;
#pragma unroll
        for (int step = 1; step < 32; step <<= 1) {
            const int o = __shfl_up_sync(~0u, upto, step);
            if (lane >= step) upto += o;
        }
        const u32 past = __ballot_sync(~0u, tile < upto);
        if (past) {
            const int at = __ffs(past) - 1, after = __shfl_sync(~0u, upto, at) - 1 - tile;
            const int start = __shfl_sync(~0u, first, at) + after * ROWS;
            return {base + at, start, min(__shfl_sync(~0u, end, at), start + ROWS)};
        }
        tile -= __shfl_sync(~0u, upto, 31);
    }
    return {-1, 0, 0};
}
