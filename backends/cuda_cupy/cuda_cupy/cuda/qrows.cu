// quantized_linear for few rows of x, any K, any group: one warp an output column, all TOKENS rows at
// once. Moves codes, scales and zeros once.
#include "quant.cuh"

extern "C" __global__ void qrows(const A* x, const u8* codes, const float* scales, const float* zeros,
                                 const B* bias, O* out, int tokens, int columns, int width, int group,
                                 int groups) {
    pdl();
    const int n = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (n >= columns) return;
    const Quantized weight{codes, scales, zeros, width, group, groups};
    float sums[TOKENS];
#pragma unroll
    for (int t = 0; t < TOKENS; t++) sums[t] = 0.f;
    for (int k = lane; k < width; k += 32) {
        const float w = weight.at(n, k);
#pragma unroll
        for (int t = 0; t < TOKENS; t++)
            sums[t] = fmaf(w, widen(x[(long long)min(t, tokens - 1) * width + k]), sums[t]);
    }
#pragma unroll
    for (int t = 0; t < TOKENS; t++) {
        const float sum = warp_sum(sums[t]);
        if (lane == 0 && t < tokens)
            out[(long long)t * columns + n] = narrow<O>(bias ? sum + widen(bias[n]) : sum);
    }
}
