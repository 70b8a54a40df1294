// The weights of an rms_norm as floats, for a row in chunks of 16 bytes of A: chunk c belongs to thread
// c % stride. No kernel of a step writes weights, so this may come before pdl_wait.
#pragma once
#include "common.cuh"

template <int PER_THREAD, int XVEC, class T>
__device__ __forceinline__ void load_norm_weights(const T* weight, int chunks, int stride,
                                                  float (&factors)[PER_THREAD][XVEC]) {
#pragma unroll
    for (int m = 0; m < PER_THREAD; m++) {
        const int c = threadIdx.x + m * stride;
        for (int e = 0; e < XVEC; e++) factors[m][e] = c < chunks ? widen(weight[c * XVEC + e]) : 0.f;
    }
}
