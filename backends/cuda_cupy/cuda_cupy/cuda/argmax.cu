// argmax of each row of logits [S, V]: the first of equal ones, NaN counting as the largest. Moves the
// row once, spread over PARTS blocks; the last one to finish takes the best of the parts.
#include "common.cuh"

// Orders like (value, then lower index), as one number.
__device__ __forceinline__ u64 rank(float x, int index) {
    u32 bits = __float_as_uint(x + 0.f);  // -0 counts as 0
    bits = x != x ? ~0u : bits >> 31 ? ~bits : bits | 0x80000000u;
    return (u64)bits << 32 | (u32)~index;
}
__device__ __forceinline__ u64 larger(u64 a, u64 b) { return a > b ? a : b; }

__device__ __forceinline__ u64 block_largest(u64 x) {
    __shared__ u64 parts[32];
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) x = larger(x, __shfl_xor_sync(~0u, x, step));
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    x = threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : 0;
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) x = larger(x, __shfl_xor_sync(~0u, x, step));
    return x;
}

extern "C" __global__ void argmax(const A* logits, int* out, u64* scratch, int* arrived, int width) {
    __shared__ int last;
    pdl();
    const int s = blockIdx.y, parts = gridDim.x;
    const A* row = logits + (long long)s * width;
    u64 best = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < width; i += parts * blockDim.x)
        best = larger(best, rank(widen(row[i]), i));
    best = block_largest(best);
    if (threadIdx.x == 0) {
        scratch[s * parts + blockIdx.x] = best;
        __threadfence();
        last = atomicAdd(arrived + s, 1) == parts - 1;
        if (last) arrived[s] = 0;  // ready for the next run
    }
    __syncthreads();
    if (!last) return;
    __threadfence();
    best = 0;
    for (int i = threadIdx.x; i < parts; i += blockDim.x)
        best = larger(best, ((volatile u64*)scratch)[s * parts + i]);
    best = block_largest(best);
    if (threadIdx.x == 0) out[s] = (int)~(u32)best;
}
