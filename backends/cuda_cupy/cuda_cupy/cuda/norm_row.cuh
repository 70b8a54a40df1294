// rms_norm of a row of whole 16-byte chunks, of which a thread keeps HELD in registers, so that the row
// is read once: chunk c belongs to thread c % stride.
#pragma once
#include "common.cuh"

// The norm of a row a or, with ADD, of a + b rounded to A, which goes to `sum` if `keep` says so. The
// result, rounded to A, goes to put(chunk, values). Waits for the previous kernel once the weights,
// which no kernel of a step writes, are on their way.
template <bool ADD, int HELD, class T, class Put>
__device__ __forceinline__ void norm_row(const A* a, const A* b, const T* weight, A* sum, bool keep,
                                         int width, int stride, float eps, Put put) {
    constexpr int EACH = 16 / sizeof(A);
    const int chunks = width / EACH;
    A values[HELD][EACH];
    float factors[HELD][EACH], squares = 0.f;
#pragma unroll
    for (int m = 0; m < HELD; m++) {
        const int c = threadIdx.x + m * stride;
        for (int e = 0; e < EACH; e++) factors[m][e] = c < chunks ? widen(weight[c * EACH + e]) : 0.f;
    }
    pdl_wait();
#pragma unroll
    for (int m = 0; m < HELD; m++) {
        const int c = threadIdx.x + m * stride;
        if (c >= chunks) continue;
        float x[EACH], y[EACH];
        unpack(((const uint4*)a)[c], x, A());
        if (ADD) unpack(((const uint4*)b)[c], y, A());
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            values[m][e] = narrow<A>(ADD ? x[e] + y[e] : x[e]);
            squares += widen(values[m][e]) * widen(values[m][e]);
        }
        if (keep) store(sum + c * EACH, values[m]);
    }
    const float inverse = 1.f / sqrtf(block_sum(squares) / width + eps);
#pragma unroll
    for (int m = 0; m < HELD; m++) {
        const int c = threadIdx.x + m * stride;
        if (c >= chunks) continue;
#pragma unroll
        for (int e = 0; e < EACH; e++)
            values[m][e] = narrow<A>(widen(values[m][e]) * inverse * factors[m][e]);
        put(c, values[m]);
    }
}
