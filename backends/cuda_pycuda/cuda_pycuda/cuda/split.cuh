// Products whose columns several blocks split between them (blockIdx.z): few tiles then reach every
// multiprocessor. A thread has SUMS sums of its block's columns.
#include "teams.cuh"

// Adds up the blocks' sums, in the order of their columns, so that no result depends on which block was
// first. Returns false in all blocks of a tile but the last to come, which then has the whole sums.
__device__ inline bool sums_are_whole(float *sum, float *parts, int *counters)
{
    if (gridDim.z == 1)
        return true;
    long long tile = blockIdx.y * gridDim.x + blockIdx.x, tiles = gridDim.x * gridDim.y;
    float *mine = parts + tile * SUMS * blockDim.x + threadIdx.x;  // neighbours beside each other
    long long step = tiles * SUMS * blockDim.x;                    // from one block's to the next one's
    #pragma unroll
    for (int i = 0; i < SUMS; i++)
        mine[blockIdx.z * step + i * blockDim.x] = sum[i];
    if (!last_block(&counters[tile], gridDim.z))
        return false;
    #pragma unroll
    for (int first = 0; first < SUMS; first += 32) {  // as many loads as registers hold beside the sums
        #pragma unroll
        for (int i = first; i < min(first + 32, SUMS); i++)
            sum[i] = 0;
        #pragma unroll 1
        for (int z = 0; z < gridDim.z; z++)
            #pragma unroll
            for (int i = first; i < min(first + 32, SUMS); i++)
                sum[i] += load_fresh(&mine[z * step + i * blockDim.x]);
    }
    return true;
}
