// quantized_linear (or, with BLOCKED, block_linear) for more than one row of x, on tensor cores: out tiles of ROWS tokens x COLUMNS a block of
// 8 warps. x and codes pass through shared memory DEEP columns of K at a time; the next tile's loads are in
// flight while this one is multiplied. Codes are small integers, exact in 16 bits: a group's products are
// summed as they are, in float32, and scaled when the group ends; where there are zeros, the group's sum of
// x comes from one more product, with ones. float32 x becomes the sum of three bf16, which is exact too
// (24 bits of mantissa in 3 x 8), and is multiplied part by part. So nothing is rounded but sums, and no expanded
// matrix is stored. Moves codes once for ROWS tokens.
//
// Compile-time: A, B, O; BITS; ZEROS; BF16; BLOCKED and then what blocks.cuh takes; ROWS and DEEP, 16 and 128, or 64 or 128 and 64. The first is for little
// work: a tile is narrow, so that there are enough blocks, and deep: each warp multiplies 16 columns of K for the
// whole tile, and the warps' sums are added at the end. In the others each warp has a part of the tile.
#include "parts.cuh"
#if BLOCKED
#include "blocks.cuh"
#else
#include "quant.cuh"
#endif

constexpr int THREADS = 256, WARPS = THREADS / 32, PAD = DEEP + 8;
constexpr int PIECE = 16;                             // codes that a thread unpacks, of one group
constexpr int PIECES = DEEP / PIECE;                  // of a column of the tile
constexpr int COLUMNS = THREADS / PIECES;
constexpr bool SPLIT = DEEP == WARPS * 16;            // the warps share K, not the tile
constexpr int BLOCKS = (SPLIT ? ROWS : ROWS / 4) / 16;  // of 16 tokens that a warp has, by 32 columns
constexpr int XVEC = 16 / sizeof(A), X_CHUNKS = ROWS * DEEP / XVEC / THREADS;  // that a thread copies
constexpr int X_BYTES = PARTS * ROWS * PAD * 2, W_BYTES = COLUMNS * PAD * 2;
static_assert(!SPLIT || WARPS / 2 * ROWS * COLUMNS * 4 <= X_BYTES + W_BYTES, "half of the warps' sums must fit");

// A thread's part of the next tile, already loaded.
struct Loaded { uint4 x[X_CHUNKS]; uint4 codes; u32 upper; float scale, zero; };

extern "C" __global__ void __launch_bounds__(THREADS)
qtiled(const A* x,
#if BLOCKED
       const u8* codes, const u8* high, const f16* steps, const i8* scales, const f16* min_steps,
       const i8* minimums,
#else
       const u8* codes, const float* scales, const float* zeros,
#endif
       const B* bias, O* out, int tokens, int columns, int width, int group, int groups) {
    __shared__ __align__(16) u8 memory[X_BYTES + W_BYTES];
    __shared__ float ss[PIECES][COLUMNS], zs[PIECES][COLUMNS];
    M (*const xs)[ROWS][PAD] = (M (*)[ROWS][PAD])memory;
    M (*const ws)[PAD] = (M (*)[PAD])(memory + X_BYTES);
    pdl();
    const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32, matrix = lane / 8, line = lane % 8;
    const int t0 = blockIdx.y * ROWS, n0 = blockIdx.x * COLUMNS;
    const int n = min(n0 + tid / PIECES, columns - 1), piece = tid % PIECES * PIECE;
    auto place = [&](int i, int& t, int& k) {  // of chunk i of x in the tile
        const int c = tid + i * THREADS;
        t = c / (DEEP / XVEC);
        k = c % (DEEP / XVEC) * XVEC;
    };
    auto fetch = [&](int k0, Loaded& next) {
#pragma unroll
        for (int i = 0; i < X_CHUNKS; i++) {
            int t, k;
            place(i, t, k);
            next.x[i] = k0 + k < width
                ? *(const uint4*)(x + (long long)min(t0 + t, tokens - 1) * width + k0 + k)
                : make_uint4(0, 0, 0, 0);
        }
        const int k = k0 + piece;
        next.codes = make_uint4(0, 0, 0, 0);
        next.scale = next.zero = 0.f;
        next.upper = 0;
        if (k >= width) return;
#if BLOCKED
        const Blocks matrix{codes, high, steps, scales, min_steps, minimums};
        const long long at = (long long)n * width + k;
        next.scale = matrix.scale(at);
        next.zero = ZEROS ? matrix.offset(at) : 0.f;
        next.upper = matrix.upper16(at);
#else
        next.scale = scales[(long long)n * groups + k / group];
#endif
#if ZEROS && !BLOCKED
        next.zero = zeros[(long long)n * groups + k / group] - (BITS == 8 ? 0.f : 8.f);
#endif
#if BITS == 8
        next.codes = *(const uint4*)(codes + (long long)n * width + k);
#else
        const uint2 half = *(const uint2*)(codes + ((long long)n * width + k) / 2);
        next.codes.x = half.x;
        next.codes.y = half.y;
#endif
    };
    auto put = [&](const Loaded& next) {
#pragma unroll
        for (int i = 0; i < X_CHUNKS; i++) {
            int t, k;
            place(i, t, k);
            put_x(xs, t, k, next.x[i], A());
        }
        const u32 words[4] = {next.codes.x, next.codes.y, next.codes.z, next.codes.w};
        float w[PIECE];
#pragma unroll
        for (int i = 0; i < PIECE / CODES; i++)
#if BLOCKED
            decode_block(words[i], next.upper >> 8 * UPPER * i, w + i * CODES);
#else
            decode(words[i], w + i * CODES);
#endif
        u32 pairs[PIECE / 2];
#pragma unroll
        for (int i = 0; i < PIECE / 2; i++) pairs[i] = pair(w[2 * i], w[2 * i + 1]);
        uint4* target = (uint4*)&ws[tid / PIECES][piece];
        target[0] = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
        target[1] = make_uint4(pairs[4], pairs[5], pairs[6], pairs[7]);
        ss[tid % PIECES][tid / PIECES] = next.scale;
        zs[tid % PIECES][tid / PIECES] = next.zero;
    };

    const int row = SPLIT ? 0 : warp / 2 * (ROWS / 4), column = SPLIT ? 0 : warp % 2 * 32;
    // the warp's part of the tile; parts and totals are of the group
    float sums[BLOCKS][4][4] = {}, parts[BLOCKS][4][4] = {}, totals[BLOCKS][4] = {};
    const u32 ones = pair(1.f, 1.f);
    Loaded next;
    fetch(0, next);
    for (int k0 = 0; k0 < width; k0 += DEEP) {
        put(next);
        __syncthreads();
        if (k0 + DEEP < width) fetch(k0 + DEEP, next);
#pragma unroll
        for (int step = 0; step < (SPLIT ? 1 : PIECES); step++) {
            const int at = SPLIT ? warp : step, k = at * 16;
            u32 b[2][4];
#pragma unroll
            for (int j = 0; j < 2; j++)
                load_matrices(b[j], &ws[column + (2 * j + matrix / 2) * 8 + line][k + matrix % 2 * 8]);
#pragma unroll
            for (int p = PARTS - 1; p >= 0; p--)  // the small parts first
#pragma unroll
                for (int m = 0; m < BLOCKS; m++) {
                    u32 a[4];
                    load_matrices(a, &xs[p][row + m * 16 + matrix % 2 * 8 + line][k + matrix / 2 * 8]);
#pragma unroll
                    for (int j = 0; j < 4; j++)
                        mma(parts[m][j], a, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
#if ZEROS
                    mma(totals[m], a, ones, ones);
#endif
                }
            const int done = k0 + k + 16;
            if (!SPLIT && done % group && done < width) continue;
#pragma unroll
            for (int m = 0; m < BLOCKS; m++) {
#pragma unroll
                for (int j = 0; j < 4; j++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const int c = column + j * 8 + lane % 4 * 2 + i % 2;
#if BLOCKED
                        sums[m][j][i] -= zs[at][c] * totals[m][i];
                        sums[m][j][i] = fmaf(ss[at][c], parts[m][j][i], sums[m][j][i]);
#else
                        const float exact = parts[m][j][i] - zs[at][c] * totals[m][i];
                        sums[m][j][i] = fmaf(ss[at][c], exact, sums[m][j][i]);
#endif
                        parts[m][j][i] = 0.f;
                    }
#pragma unroll
                for (int i = 0; i < 4; i++) totals[m][i] = 0.f;
            }
        }
        __syncthreads();
    }
    if (SPLIT) {  // half of the warps hand their sums to the others, until one has all
        float (*const held)[BLOCKS * 16][32] = (float (*)[BLOCKS * 16][32])memory;
#pragma unroll
        for (int half = WARPS / 2; half > 0; half /= 2) {
            const bool gives = warp >= half && warp < 2 * half;
#pragma unroll
            for (int i = 0; i < BLOCKS * 16; i++)
                if (gives) held[warp - half][i][lane] = sums[i / 16][i / 4 % 4][i % 4];
            __syncthreads();
#pragma unroll
            for (int i = 0; i < BLOCKS * 16; i++)
                if (warp < half) sums[i / 16][i / 4 % 4][i % 4] += held[warp][i][lane];
            __syncthreads();
        }
        if (warp > 0) return;
    }
#pragma unroll
    for (int m = 0; m < BLOCKS; m++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int t = t0 + row + m * 16 + lane / 4 + i / 2 * 8;
                const int c = n0 + column + j * 8 + lane % 4 * 2 + i % 2;
                if (t < tokens && c < columns)
                    out[(long long)t * columns + c] =
                        narrow<O>(bias ? sums[m][j][i] + widen(bias[c]) : sums[m][j][i]);
            }
}
