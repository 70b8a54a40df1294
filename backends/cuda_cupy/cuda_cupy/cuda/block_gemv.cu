// block_linear for one row of x: out = W x + bias. Moves codes, scales and steps once. A warp (or KSPLIT
// warps) owns ROWS rows, whose pieces of 32 codes flow through a ring of registers, DEPTH in flight a lane, as in
// qstream.cuh; x is float32 in shared memory.
//
// Compile-time: A, B, O; K; ROWS; KSPLIT; WARPS; MAX_DEPTH; those of blocks.cuh.
#include "blocks.cuh"
#include "epilogue.cuh"

constexpr int VEC = 32;                               // codes of a piece
#include "staged_x.cuh"
constexpr int PIECES = K / VEC;                       // of a row
constexpr int STRIDE = 32 * KSPLIT;                   // pieces that a row's lanes read at a time
constexpr int PER = (PIECES + STRIDE - 1) / STRIDE;   // that a lane reads of a row
constexpr int TOTAL = PER * ROWS;
constexpr int DEPTH = TOTAL < MAX_DEPTH ? TOTAL : MAX_DEPTH;
constexpr int PARTS = GROUP < VEC ? VEC / GROUP : 1;  // groups of a piece
constexpr int PART = VEC / PARTS;

struct Held { uint4 codes; u32 upper[2]; float scale[PARTS]; };

extern "C" __global__ void __launch_bounds__(WARPS * 32)
block_gemv(const A* x, const u8* codes, const u8* high, const f16* steps, const i8* scales,
           const f16* min_steps, const i8* minimums, const B* bias, O* out, int rows) {
    extern __shared__ float4 staged[];
    __shared__ float partial[WARPS][ROWS];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int base = (blockIdx.x * (WARPS / KSPLIT) + warp / KSPLIT) * ROWS;
    const int first = warp % KSPLIT * 32 + lane;
    const Blocks matrix{codes, high, steps, scales, min_steps, minimums};
    pdl_launch();
    auto inside = [&](int j) {
        return (j / ROWS + 1) * STRIDE <= PIECES || first + j / ROWS * STRIDE < PIECES;
    };
    auto place = [&](int j) {  // where piece j begins in the matrix; the last warp repeats the last row
        return (long long)min(base + j % ROWS, rows - 1) * K + (first + j / ROWS * STRIDE) * VEC;
    };
    auto fetch = [&](int j) {
        Held held = {};
        if (!inside(j)) return held;
        const long long at = place(j);
        held.codes = load_once((const uint4*)(codes + at / 2));
        if (UPPER == 1) held.upper[0] = __ldg((const u32*)(high + at / 8));
        if (UPPER == 2) {
            const uint2 both = __ldg((const uint2*)(high + at / 4));
            held.upper[0] = both.x;
            held.upper[1] = both.y;
        }
#pragma unroll
        for (int p = 0; p < PARTS; p++) held.scale[p] = matrix.scale(at + p * PART);
        return held;
    };
    Held ring[DEPTH];
#pragma unroll
    for (int j = 0; j < DEPTH; j++) ring[j] = fetch(j);
    pdl_wait();
    stage_plain(x, staged);
    __syncthreads();
    float xs[VEC], sums[ROWS] = {}, totals[PARTS] = {};
#pragma unroll
    for (int j = 0; j < TOTAL; j++) {
        const int i = j / ROWS, r = j % ROWS;
        const Held held = ring[j % DEPTH];
        if (j + DEPTH < TOTAL) ring[j % DEPTH] = fetch(j + DEPTH);
        if (r == 0) {
#pragma unroll
            for (int q = 0; q < XPER; q++) {
                const int piece = first + i * STRIDE, at = (piece / 32 * XPER + q) * 32 + piece % 32;
                const float4 v = inside(j) ? staged[at] : make_float4(0, 0, 0, 0);
                xs[4 * q] = v.x; xs[4 * q + 1] = v.y; xs[4 * q + 2] = v.z; xs[4 * q + 3] = v.w;
            }
#pragma unroll
            for (int p = 0; p < (ZEROS ? PARTS : 0); p++) {
                totals[p] = 0.f;
#pragma unroll
                for (int e = 0; e < PART; e++) totals[p] += xs[p * PART + e];
            }
        }
        const u32 words[4] = {held.codes.x, held.codes.y, held.codes.z, held.codes.w};
#pragma unroll
        for (int p = 0; p < PARTS; p++) {
            float even = 0.f, odd = 0.f;
#pragma unroll
            for (int q = p * PART / 8; q < (p + 1) * PART / 8; q++) {
                float w[8];
                decode_block(words[q], UPPER == 1 ? held.upper[0] >> 8 * q
                                                  : held.upper[q / 2] >> 16 * (q % 2), w);
#pragma unroll
                for (int e = 0; e < 8; e += 2) {
                    even = fmaf(w[e], xs[8 * q + e], even);
                    odd = fmaf(w[e + 1], xs[8 * q + e + 1], odd);
                }
            }
            sums[r] = fmaf(held.scale[p], even + odd, sums[r]);
            if (ZEROS && inside(j)) sums[r] -= matrix.offset(place(j) + p * PART) * totals[p];
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const float sum = warp_sum(sums[r]);
        if (lane == r) partial[warp][r] = sum;
    }
    if (KSPLIT > 1) __syncthreads(); else __syncwarp();
    if (warp % KSPLIT || lane >= ROWS || base + lane >= rows) return;
    put_sum(out, bias, base + lane, add_parts(partial, warp, lane));
}
