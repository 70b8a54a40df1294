// quantized_linear for many rows of 16-bit x, on tensor cores: out tiles of 128 tokens x 64 columns a
// block of 8 warps (4 x 2, each 32 x 32). x and codes pass through shared memory 64 columns of K at a
// time; the next tile's loads are in flight while this one is multiplied. Codes are small integers,
// exact in x's type: a group's products are summed as they are, in float32, and scaled when the group
// ends; where there are zeros, the group's sum of x comes from one more product, with ones. So nothing
// is rounded but the result, and no expanded matrix is stored. Moves codes once for 128 tokens.
#include "mma.cuh"
#include "quant.cuh"

constexpr int ROWS = 128, COLUMNS = 64, DEEP = 64, PAD = DEEP + 8, THREADS = 256;
constexpr int PIECE = 16;                               // codes that a thread unpacks, of one group
constexpr int X_CHUNKS = ROWS * DEEP / 8 / THREADS;     // of 8 elements that a thread copies

// What a thread has loaded of the next tile.
struct Loaded { uint4 x[X_CHUNKS]; uint4 codes; float scale, zero; };

extern "C" __global__ void __launch_bounds__(THREADS)
qtiled(const A* x, const u8* codes, const float* scales, const float* zeros, const B* bias, O* out,
       int tokens, int columns, int width, int group, int groups) {
    __shared__ __align__(16) A xs[ROWS][PAD];
    __shared__ __align__(16) A ws[COLUMNS][PAD];
    __shared__ float ss[DEEP / PIECE][COLUMNS], zs[DEEP / PIECE][COLUMNS];
    pdl();
    const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32, matrix = lane / 8, line = lane % 8;
    const int t0 = blockIdx.y * ROWS, n0 = blockIdx.x * COLUMNS;
    const int n = min(n0 + tid / 4, columns - 1), piece = tid % 4 * PIECE;
    auto fetch = [&](int k0, Loaded& next) {
#pragma unroll
        for (int i = 0; i < X_CHUNKS; i++) {
            const int c = tid + i * THREADS, t = min(t0 + c / 8, tokens - 1), k = k0 + c % 8 * 8;
            next.x[i] = k < width ? *(const uint4*)(x + (long long)t * width + k)
                                  : make_uint4(0, 0, 0, 0);
        }
        const int k = k0 + piece;
        next.codes = make_uint4(0, 0, 0, 0);
        next.scale = next.zero = 0.f;
        if (k >= width) return;
        next.scale = scales[(long long)n * groups + k / group];
#if ZEROS
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
            const int c = tid + i * THREADS;
            *(uint4*)&xs[c / 8][c % 8 * 8] = next.x[i];
        }
        const u32 words[4] = {next.codes.x, next.codes.y, next.codes.z, next.codes.w};
        float w[PIECE];
#if BITS == 8
#pragma unroll
        for (int i = 0; i < 4; i++) bytes_to_floats(words[i] ^ 0x80808080u, 128.f, w + 4 * i);
#else
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float low[4], high[4];
            bytes_to_floats(words[i] & 0x0F0F0F0Fu, 8.f, low);
            bytes_to_floats(words[i] >> 4 & 0x0F0F0F0Fu, 8.f, high);
#pragma unroll
            for (int e = 0; e < 4; e++) {
                w[8 * i + 2 * e] = low[e];
                w[8 * i + 2 * e + 1] = high[e];
            }
        }
#endif
        u32 pairs[PIECE / 2];
#pragma unroll
        for (int i = 0; i < PIECE / 2; i++)
            pairs[i] = pair(w[2 * i], w[2 * i + 1]);
        uint4* target = (uint4*)&ws[tid / 4][piece];
        target[0] = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
        target[1] = make_uint4(pairs[4], pairs[5], pairs[6], pairs[7]);
        ss[tid % 4][tid / 4] = next.scale;
        zs[tid % 4][tid / 4] = next.zero;
    };

    const int row = warp / 2 * 32, column = warp % 2 * 32;  // of the warp's part of the tile
    float sums[2][4][4] = {}, parts[2][4][4] = {}, totals[2][4] = {};  // parts, totals: of the group
    const u32 ones = pair(1.f, 1.f);
    Loaded next;
    fetch(0, next);
    for (int k0 = 0; k0 < width; k0 += DEEP) {
        put(next);
        __syncthreads();
        if (k0 + DEEP < width) fetch(k0 + DEEP, next);
#pragma unroll
        for (int k = 0; k < DEEP; k += 16) {
            u32 a[2][4];
#pragma unroll
            for (int m = 0; m < 2; m++)
                load_matrices(a[m], &xs[row + m * 16 + matrix % 2 * 8 + line][k + matrix / 2 * 8]);
#pragma unroll
            for (int j = 0; j < 4; j += 2) {
                u32 b[4];
                load_matrices(b, &ws[column + (j + matrix / 2) * 8 + line][k + matrix % 2 * 8]);
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    mma(parts[m][j], a[m], b[0], b[1]);
                    mma(parts[m][j + 1], a[m], b[2], b[3]);
                }
            }
#if ZEROS
#pragma unroll
            for (int m = 0; m < 2; m++) mma(totals[m], a[m], ones, ones);
#endif
            const int done = k0 + k + 16;
            if (done % group && done < width) continue;
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int j = 0; j < 4; j++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const int c = column + j * 8 + lane % 4 * 2 + i % 2;
                        const float exact = parts[m][j][i] - zs[k / PIECE][c] * totals[m][i];
                        sums[m][j][i] = fmaf(ss[k / PIECE][c], exact, sums[m][j][i]);
                        parts[m][j][i] = 0.f;
                    }
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int i = 0; i < 4; i++) totals[m][i] = 0.f;
        }
        __syncthreads();
    }
#pragma unroll
    for (int m = 0; m < 2; m++)
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
