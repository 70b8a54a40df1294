// embedding: out[t] = table[ids[t]].
//
// Moves     T rows of the table in, T rows out: D * (sizeof(W) + sizeof(O)) bytes a token.
// Threads   a block a token; neighbours take neighbouring columns, so that a warp reads 32 of them
//           in one piece. For a decode step it is one row, and only its latency counts.
// Source    core/ops/embedding.py.
#include "numbers.cuh"

extern "C" __global__ void embedding(const int *ids, const W *table, O *out, int rows, int width)
{
    take_turn();
    long long row = min(max(ids[blockIdx.x], 0), rows - 1);  // never outside of the table
    for (int i = threadIdx.x; i < width; i += blockDim.x)
        store(&out[(long long)blockIdx.x * width + i], to_float(table[row * width + i]));
}
