// advance: ids = token, positions and lengths + 1, slots from the block table; one thread a sequence.
// It does not let the next kernel start early, and neither does embedding before its own wait: so
// attention may read lengths and tables while the kernels before it in the step still run.
#include "common.cuh"

extern "C" __global__ void advance(const int* token, const int* table, int* ids, int* positions,
                                   int* slots, int* lengths, int sequences, int width, int size) {
    pdl_wait();
    const int s = blockIdx.x * blockDim.x + threadIdx.x;
    if (s >= sequences || lengths[s] == 0) return;
    ids[s] = token[s];
    lengths[s] += 1;
    const int position = positions[s] += 1;
    const int block = position / size;
    const int owned = block < width ? table[s * width + block] : -1;
    slots[s] = owned >= 0 ? owned * size + position % size : -1;
}
