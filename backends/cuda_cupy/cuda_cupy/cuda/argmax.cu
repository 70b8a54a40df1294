// argmax of each row of logits [S, V]: the first of equal ones, NaN counting as the largest. Moves the
// row once, spread over PARTS blocks; the last one to finish takes the best of the parts.
#include "rank.cuh"

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
    if (threadIdx.x == 0) out[s] = index_of(best);
}
