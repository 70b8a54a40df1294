// Rows of codes streamed past one activation row in shared memory, as stream.cuh does for floats: a
// warp (or KSPLIT warps) owns ROWS rows, whose 16-byte pieces (16 or 32 codes of one group, with the group's scale) flow
// through a ring of registers, DEPTH in flight a lane, the first ones issued before the wait for the
// previous kernel. x is float32 in shared memory.
//
// Compile-time: A, B, O; BITS; K; GROUP; ROWS; KSPLIT; WARPS; ZEROS.
#pragma once
#include "quant.cuh"

constexpr int VEC = BITS == 8 ? 16 : 32;              // codes of a piece
#include "staged_x.cuh"
constexpr int PIECES = K / VEC;                       // of a row
constexpr int STRIDE = 32 * KSPLIT;                   // pieces that a row's lanes read at a time
constexpr int PER = (PIECES + STRIDE - 1) / STRIDE;   // that a lane reads of a row
constexpr int TOTAL = PER * ROWS;
constexpr int DEPTH = TOTAL < MAX_DEPTH ? TOTAL : MAX_DEPTH;
constexpr int GROUPS = (K + GROUP - 1) / GROUP;
static_assert(K % VEC == 0 && GROUP % VEC == 0, "a piece must lie within a row and a group");

struct Row { const u8* codes; const float* scales; const float* zeros; };

// sums[r] = the warp's part of row(r) · x, in every lane. `stage()` waits for the previous kernel and fills x.
template <class Find, class Stage>
__device__ __forceinline__ void stream_codes(const float4* x, Find row, Stage stage,
                                             float (&sums)[ROWS]) {
    const int first = threadIdx.x / 32 % KSPLIT * 32 + threadIdx.x % 32;
    Row rows[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) rows[r] = row(r);
    auto inside = [&](int j) {
        return (j / ROWS + 1) * STRIDE <= PIECES || first + j / ROWS * STRIDE < PIECES;
    };
    auto fetch = [&](int j) {
        const uint4* at = (const uint4*)rows[j % ROWS].codes + first + j / ROWS * STRIDE;
        return inside(j) ? load_once(at) : make_uint4(0, 0, 0, 0);
    };
    auto fetch_scale = [&](int j) {
        const float* at = rows[j % ROWS].scales + (first + j / ROWS * STRIDE) * VEC / GROUP;
        return inside(j) ? __ldg(at) : 0.f;
    };
    uint4 ring[DEPTH];
    float scale[DEPTH];
#pragma unroll
    for (int j = 0; j < DEPTH; j++) { ring[j] = fetch(j); scale[j] = fetch_scale(j); }
    stage();
    float xs[VEC], total = 0.f;
#pragma unroll
    for (int r = 0; r < ROWS; r++) sums[r] = 0.f;
#pragma unroll
    for (int j = 0; j < TOTAL; j++) {
        const int i = j / ROWS, r = j % ROWS;
        const uint4 codes = ring[j % DEPTH];
        float w[VEC];
        decode(codes.x, w);
        decode(codes.y, w + CODES);
        decode(codes.z, w + 2 * CODES);
        decode(codes.w, w + 3 * CODES);
        const float factor = scale[j % DEPTH];
        if (j + DEPTH < TOTAL) {
            ring[j % DEPTH] = fetch(j + DEPTH);
            scale[j % DEPTH] = fetch_scale(j + DEPTH);
        }
        if (r == 0) {
            total = 0.f;
#pragma unroll
            for (int q = 0; q < XPER; q++) {
                const int piece = first + i * STRIDE, at = (piece / 32 * XPER + q) * 32 + piece % 32;
                const float4 v = inside(j) ? x[at] : make_float4(0, 0, 0, 0);
                xs[4 * q] = v.x; xs[4 * q + 1] = v.y; xs[4 * q + 2] = v.z; xs[4 * q + 3] = v.w;
                total += (v.x + v.y) + (v.z + v.w);
            }
        }
        float even = 0.f, odd = 0.f;
#pragma unroll
        for (int e = 0; e < VEC; e += 2) {
            even = fmaf(w[e], xs[e], even);
            odd = fmaf(w[e + 1], xs[e + 1], odd);
        }
        float sum = even + odd;
#if ZEROS
        const float* zero = rows[r].zeros + (first + i * STRIDE) * VEC / GROUP;
        if (inside(j)) sum -= (__ldg(zero) - (BITS == 8 ? 0.f : 8.f)) * total;
#endif
        sums[r] = fmaf(factor, sum, sums[r]);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) sums[r] = warp_sum(sums[r]);
}
