// linear or quantized_linear for many rows, in true float32: out tiles of 64 x 64 a block of 256
// threads, 4 x 4 a thread, both operands widened (and dequantised) into shared memory 16 columns at a
// time. Moves weights once for every 64 rows of x; no expanded matrix is stored.
#if BITS
#include "quant.cuh"
#else
#include "common.cuh"
#endif

constexpr int TILE = 64, DEEP = 16;
constexpr int RUN = 256;  // columns summed before they join the total: long single sums lose digits

extern "C" __global__ void __launch_bounds__(256)
tiled(const A* x, const void* weight, const float* scales, const float* zeros, const B* bias, O* out,
      int tokens, int columns, int width, int group, int groups) {
    __shared__ float xs[DEEP][TILE + 4], ws[DEEP][TILE + 4];
    pdl();
    const int tid = threadIdx.x, row = tid / 16 * 4, column = tid % 16 * 4;
    const int t0 = blockIdx.y * TILE, n0 = blockIdx.x * TILE;
#if BITS
    const Quantized matrix{(const u8*)weight, scales, zeros, width, group, groups};
#endif
    float sums[4][4] = {}, totals[4][4] = {};
    for (int k0 = 0; k0 < width; k0 += DEEP) {
#pragma unroll
        for (int i = 0; i < TILE * DEEP / 256; i++) {
            const int r = (tid + i * 256) / DEEP, k = k0 + tid % DEEP, at = tid % DEEP;
            xs[at][r] = t0 + r < tokens && k < width
                ? widen(x[(long long)(t0 + r) * width + k]) : 0.f;
#if BITS
            ws[at][r] = n0 + r < columns && k < width ? matrix.at(n0 + r, k) : 0.f;
#else
            ws[at][r] = n0 + r < columns && k < width
                ? widen(((const W*)weight)[(long long)(n0 + r) * width + k]) : 0.f;
#endif
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DEEP; k++) {
            const float4 a = *(const float4*)&xs[k][row], b = *(const float4*)&ws[k][column];
            const float as[4] = {a.x, a.y, a.z, a.w}, bs[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) sums[i][j] = fmaf(as[i], bs[j], sums[i][j]);
        }
        __syncthreads();
        if (k0 % RUN != RUN - DEEP && k0 + DEEP < width) continue;
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                totals[i][j] += sums[i][j];
                sums[i][j] = 0.f;
            }
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int t = t0 + row + i, n = n0 + column + j;
            if (t < tokens && n < columns)
                out[(long long)t * columns + n] =
                    narrow<O>(bias ? totals[i][j] + widen(bias[n]) : totals[i][j]);
        }
}
