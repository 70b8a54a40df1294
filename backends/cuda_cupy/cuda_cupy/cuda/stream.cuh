// Rows of a weight matrix streamed past one activation row in shared memory. A warp (or KSPLIT warps)
// owns ROWS * STEPS output rows; 16-byte pieces of them flow through a ring of registers, DEPTH loads
// in flight a lane, the first ones issued before the wait for the previous kernel. All trip counts are
// compile-time: a run-time bound around the ring halved the bandwidth (H200).
//
// Compile-time: A, W, O; K elements a row; ROWS interleaved (they share a read of x) times STEPS one
// after the other; KSPLIT warps a row; WARPS a block.
#pragma once
#include "common.cuh"

constexpr int VEC = 16 / sizeof(W);                       // elements of a piece
constexpr int PIECES = K / VEC;                           // of a row
constexpr int STRIDE = 32 * KSPLIT;                       // pieces that a row's lanes read at a time
constexpr int PER = (PIECES + STRIDE - 1) / STRIDE;       // pieces a lane reads of a row
constexpr int TOTAL = STEPS * PER * ROWS;
constexpr int DEPTH = TOTAL < MAX_DEPTH ? TOTAL : MAX_DEPTH;
constexpr int TEAMS = WARPS / KSPLIT;                     // groups of warps that share rows
constexpr int OWNED = ROWS * STEPS;
constexpr int XVEC = 16 / sizeof(A);                      // elements of 16 bytes of x
constexpr int XPER = VEC / XVEC > 0 ? VEC / XVEC : 1;     // 16-byte chunks of x for a piece
constexpr int CHUNKS = K / XVEC;
static_assert(K % VEC == 0 && VEC % XVEC == 0, "rows must be whole 16-byte pieces");

// Where chunk c of x lies in shared memory: lanes that read neighbouring pieces read neighbouring
// 16 bytes, whatever a piece's width.
__device__ __forceinline__ int chunk_place(int c) {
    const int piece = c / XPER, part = c % XPER;
    return (piece / 32 * XPER + part) * 32 + piece % 32;
}
constexpr int STAGED = (PIECES + 31) / 32 * 32 * XPER;    // 16-byte units of shared memory

// Calls finish(step, sums) with the row sums of each step, in every lane of the team's first warp
// where KSPLIT is 1. `row(step, r)` gives the address of a row; `stage()` waits for the previous
// kernel and fills `x`.
template <class Row, class Stage, class Finish>
__device__ __forceinline__ void stream_rows(const uint4* x, Row row, Stage stage, Finish finish) {
    const int lane = threadIdx.x % 32, part = threadIdx.x / 32 % KSPLIT;
    const int first = part * 32 + lane;
    const uint4* rows[OWNED];
#pragma unroll
    for (int i = 0; i < OWNED; i++) rows[i] = (const uint4*)row(i / ROWS, i % ROWS) + first;
    auto fetch = [&](int j) {
        const int step = j / (PER * ROWS), i = j / ROWS % PER, r = j % ROWS;
        const bool inside = (i + 1) * STRIDE <= PIECES || first + i * STRIDE < PIECES;
        return inside ? load_once(rows[step * ROWS + r] + i * STRIDE) : make_uint4(0, 0, 0, 0);
    };
    uint4 ring[DEPTH];
#pragma unroll
    for (int j = 0; j < DEPTH; j++) ring[j] = fetch(j);
    stage();
    float even[ROWS], odd[ROWS], xs[VEC];
#pragma unroll
    for (int j = 0; j < TOTAL; j++) {
        const int step = j / (PER * ROWS), i = j / ROWS % PER, r = j % ROWS;
        if (i == 0) even[r] = odd[r] = 0.f;
        float w[VEC];
        unpack(ring[j % DEPTH], w, W());
        if (j + DEPTH < TOTAL) ring[j % DEPTH] = fetch(j + DEPTH);
        const int piece = first + i * STRIDE;
        if (r == 0) {
#pragma unroll
            for (int q = 0; q < XPER; q++) {
                float part_of_x[XVEC];
                const bool inside = (i + 1) * STRIDE <= PIECES || piece < PIECES;
                const uint4 bits = inside ? x[(piece / 32 * XPER + q) * 32 + piece % 32]
                                          : make_uint4(0, 0, 0, 0);
                unpack(bits, part_of_x, A());
#pragma unroll
                for (int e = 0; e < XVEC; e++) xs[q * XVEC + e] = part_of_x[e];
            }
        }
#pragma unroll
        for (int e = 0; e < VEC; e += 2) {
            even[r] = fmaf(w[e], xs[e], even[r]);
            odd[r] = fmaf(w[e + 1], xs[e + 1], odd[r]);
        }
        if (i == PER - 1 && r == ROWS - 1) {
            float sums[ROWS];
#pragma unroll
            for (int k = 0; k < ROWS; k++) sums[k] = warp_sum(even[k] + odd[k]);
            finish(step, sums);
        }
    }
}

// Copies x to shared memory in the order of chunk_place.
__device__ __forceinline__ void stage_plain(const A* x, uint4* shared) {
    for (int c = threadIdx.x; c < CHUNKS; c += WARPS * 32)
        shared[chunk_place(c)] = ((const uint4*)x)[c];
}
