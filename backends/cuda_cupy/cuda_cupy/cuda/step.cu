// advance: ids = token, positions and lengths + 1, slots from the block table; one thread a sequence.
// It does not let the next kernel start early, and neither does embedding before its own wait: so
// attention may read lengths and tables while the kernels before it in the step still run.
// pick_ids and put_tokens: the newest token of each sequence, read and written; one thread a token.
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

extern "C" __global__ void pick_ids(const int* given, const int* last, int* ids, int tokens, int places) {
    pdl_wait();
    const int t = blockIdx.x * blockDim.x + threadIdx.x;
    if (t >= tokens) return;
    const int id = given[t];
    if (id >= 0) ids[t] = id;
    else ids[t] = ~id < places ? last[~id] : 0;  // ~id is -1 - id
}

extern "C" __global__ void put_tokens(const int* tokens, const int* places, int* last, int rows, int size) {
    pdl_wait();
    const int r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= rows) return;
    const u32 place = places[r];  // a negative one is beyond any size
    if (place < (u32)size) last[place] = tokens[r];
}
