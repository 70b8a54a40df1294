// Logits ordered by value, then lower index, each as one number; NaN is the largest.
#pragma once
#include "common.cuh"

__device__ __forceinline__ u64 rank(float x, int index) {
    u32 bits = __float_as_uint(x + 0.f);  // -0 counts as 0
    bits = x != x ? ~0u : bits >> 31 ? ~bits : bits | 0x80000000u;
    return (u64)bits << 32 | (u32)~index;
}
__device__ __forceinline__ int index_of(u64 rank) { return (int)~(u32)rank; }
__device__ __forceinline__ u64 larger(u64 a, u64 b) { return a > b ? a : b; }

__device__ __forceinline__ u64 warp_largest(u64 x) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) x = larger(x, __shfl_xor_sync(~0u, x, step));
    return x;
}
__device__ __forceinline__ u64 block_largest(u64 x) {
    __shared__ u64 parts[32];
    x = warp_largest(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_largest(threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : 0);
}
