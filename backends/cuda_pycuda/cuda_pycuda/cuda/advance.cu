// advance: each live sequence takes its new token: ids = token, positions += 1, seq_lens += 1, and the
// slot that the new position has in the sequence's blocks.
//
// Moves     a few words a sequence. It exists so that a captured step can feed itself.
// Threads   one a sequence.
// Order     it does not let the next kernel start: that one may be the next step's first, and would read
//           before its wait what this one writes.
// Source    core/ops/step.py.
#include "ptx.cuh"

extern "C" __global__ void advance(const int *token, const int *block_table, int *ids,
                                   int *positions, int *slots, int *seq_lens, int sequences,
                                   int width, int block_size)
{
    wait_for_previous();
    int s = blockIdx.x * blockDim.x + threadIdx.x;
    if (s >= sequences || seq_lens[s] == 0)
        return;
    int position = positions[s] + 1, column = position / block_size;
    int block = column < width ? block_table[s * width + column] : -1;
    ids[s] = token[s];
    positions[s] = position;
    seq_lens[s] += 1;
    slots[s] = block < 0 ? -1 : block * block_size + position % block_size;
}
