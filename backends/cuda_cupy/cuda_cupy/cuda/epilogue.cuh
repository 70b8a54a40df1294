// The epilogue of products with one row, of floats (gemv.cu, gate_up.cu) or of codes (qgemv.cu, qgate_up.cu).
#pragma once
#include "common.cuh"

// Adds up the parts of sum `index` that the KSPLIT warps from `warp` on have.
template <int COUNT>
__device__ __forceinline__ float add_parts(const float (&partial)[WARPS][COUNT], int warp, int index) {
    float sum = 0.f;
#pragma unroll
    for (int part = 0; part < KSPLIT; part++) sum += partial[warp + part][index];
    return sum;
}

// out[n] = sum + bias[n], where there is a bias.
template <class Out, class Bias>
__device__ __forceinline__ void put_sum(Out* out, const Bias* bias, int n, float sum) {
    out[n] = narrow<Out>(bias ? sum + widen(bias[n]) : sum);
}

// Writes out[n] = silu(gate) * up from the sums of a gate row and an up row, by one lane.
__device__ __forceinline__ void put_gated(A* out, int n, int rows, float gate, float up) {
    if (threadIdx.x % 32 == 0 && n < rows) out[n] = narrow<A>(silu(gate) * up);
}
