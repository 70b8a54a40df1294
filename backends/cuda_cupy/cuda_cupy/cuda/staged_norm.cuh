// rms_norm(a + b) computed by every block for itself, as the prologue of a product. The sum is rounded
// to A, and so is the result, as the separate kernels would; block 0 stores the sum. WIDTH elements,
// in 16-byte chunks that a thread keeps in registers, then hands to put(chunk, values). Waits for the
// previous kernel, once the norm's weights are on their way.
#pragma once
#include "norm_weights.cuh"

template <int WIDTH, int THREADS, class Put>
__device__ __forceinline__ void staged_norm(const A* a, const A* b, const G* weight, A* sum, float eps,
                                            Put put) {
    constexpr int XVEC = 16 / sizeof(A), CHUNKS = WIDTH / XVEC;
    constexpr int MINE = (CHUNKS + THREADS - 1) / THREADS;
    float values[MINE][XVEC], factors[MINE][XVEC], squares = 0.f;
    load_norm_weights(weight, CHUNKS, THREADS, factors);
    pdl_wait();
#pragma unroll
    for (int m = 0; m < MINE; m++) {
        const int c = threadIdx.x + m * THREADS;
        if (c >= CHUNKS) continue;
        float other[XVEC];
        A rounded[XVEC];
        unpack(((const uint4*)a)[c], values[m], A());
        unpack(((const uint4*)b)[c], other, A());
#pragma unroll
        for (int e = 0; e < XVEC; e++) {
            rounded[e] = narrow<A>(values[m][e] + other[e]);
            values[m][e] = widen(rounded[e]);
            squares += values[m][e] * values[m][e];
        }
        if (blockIdx.x == 0) store(sum + c * XVEC, rounded);
    }
    const float inverse = 1.f / sqrtf(block_sum(squares) / WIDTH + eps);
#pragma unroll
    for (int m = 0; m < MINE; m++) {
        const int c = threadIdx.x + m * THREADS;
        if (c >= CHUNKS) continue;
        A rounded[XVEC];
#pragma unroll
        for (int e = 0; e < XVEC; e++)
            rounded[e] = narrow<A>(values[m][e] * inverse * factors[m][e]);
        put(c, rounded);
    }
}
