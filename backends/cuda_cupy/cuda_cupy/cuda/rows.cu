// linear for few rows of x, any K and any mix of types: one warp an output column, all TOKENS rows of
// x at once, so that each weight is read once. Moves the weights once; x comes from the L1 and L2
// caches. ALIGNED: rows are whole 16-byte pieces, else element by element.
#include "common.cuh"

extern "C" __global__ void rows(const A* x, const W* weight, const W* bias, O* out, int tokens,
                                int columns, int width) {
    pdl();
    const int n = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (n >= columns) return;
    const W* row = weight + (long long)n * width;
    float sums[TOKENS];
#pragma unroll
    for (int t = 0; t < TOKENS; t++) sums[t] = 0.f;
#if ALIGNED
    constexpr int VEC = 16 / sizeof(W), XVEC = 16 / sizeof(A);
#pragma unroll 4
    for (int k = lane * VEC; k < width; k += 32 * VEC) {
        float w[VEC];
        unpack(load_once((const uint4*)(row + k)), w, W());
#pragma unroll
        for (int t = 0; t < TOKENS; t++) {
            const A* at = x + (long long)min(t, tokens - 1) * width + k;
#pragma unroll
            for (int q = 0; q < VEC / XVEC; q++) {
                float xs[XVEC];
                unpack(((const uint4*)at)[q], xs, A());
#pragma unroll
                for (int e = 0; e < XVEC; e++) sums[t] = fmaf(w[q * XVEC + e], xs[e], sums[t]);
            }
        }
    }
#else
    for (int k = lane; k < width; k += 32) {
        const float w = widen(row[k]);
#pragma unroll
        for (int t = 0; t < TOKENS; t++)
            sums[t] = fmaf(w, widen(x[(long long)min(t, tokens - 1) * width + k]), sums[t]);
    }
#endif
#pragma unroll
    for (int t = 0; t < TOKENS; t++) {
        const float sum = warp_sum(sums[t]);
        if (lane == 0 && t < tokens)
            out[(long long)t * columns + n] = narrow<O>(bias ? sum + widen(bias[n]) : sum);
    }
}
