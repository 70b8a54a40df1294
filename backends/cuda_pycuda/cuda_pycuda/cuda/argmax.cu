// argmax: the index of the largest logit, the first of equal ones; a NaN counts as the largest.
//
// Moves     a row of logits in: 0.5 MB in float32 for a vocabulary of 128,256. One multiprocessor would
//           need 5 us for that, so a row is spread over many.
// Threads   blockIdx.y is the row, blockIdx.x a part of it. Thread i takes every so-many-th logit, then
//           threads and warps are compared in pairs; the block that comes last compares the parts.
// Source    core/ops/sampling.py.
#include "numbers.cuh"
#include "best.cuh"
#include "teams.cuh"

extern "C" __global__ void argmax(const A *logits, int *out, int *parts, int *counters, int width)
{
    take_turn();
    const A *row = logits + (long long)blockIdx.y * width;
    best mine = nothing();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < width; i += gridDim.x * blockDim.x)
        mine = better(mine, candidate(to_float(row[i]), i));
    mine = block_best(mine);
    int *part = parts + (long long)blockIdx.y * gridDim.x * 2;
    if (threadIdx.x == 0) {
        part[2 * blockIdx.x] = (int)mine.key;
        part[2 * blockIdx.x + 1] = mine.index;
    }
    if (!last_block(&counters[blockIdx.y], gridDim.x))
        return;
    mine = nothing();
    for (int i = threadIdx.x; i < gridDim.x; i += blockDim.x) {
        best other = {(unsigned)load_fresh(&part[2 * i]), load_fresh(&part[2 * i + 1])};
        mine = better(mine, other);
    }
    mine = block_best(mine);
    if (threadIdx.x == 0)
        out[blockIdx.y] = mine.index;
}
