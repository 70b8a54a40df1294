// rms_norm(a + b) computed by every block for itself, as the prologue of a product (norm_row.cuh). The
// result is rounded to A, as the separate kernel would; block 0 stores the sum. K elements, whose
// 16-byte chunks go to put(chunk, values).
#pragma once
#include "norm_row.cuh"

template <class Put>
__device__ __forceinline__ void staged_norm(const A* a, const A* b, const G* weight, A* sum, float eps,
                                            Put put) {
    constexpr int THREADS = WARPS * 32, CHUNKS = K / (16 / (int)sizeof(A));
    norm_row<true, (CHUNKS + THREADS - 1) / THREADS>(a, b, weight, sum, blockIdx.x == 0, K, THREADS,
                                                     eps, put);
}
