// advance: each live sequence takes its new token: ids = token, positions += 1, seq_lens += 1, and the
// slot that the new position has in the sequence's blocks.
// pick_ids: ids = given, or the token that waits in a place of `last`. put_tokens puts it there.
//
// Moves     a few words a sequence. They exist so that steps can be queued before tokens are known.
// Threads   one a sequence or token.
// Order     none lets the next kernel start: that one may be the next step's first, and would read
//           before its wait what this one writes.
// Source    core/ops/advance.py.
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

extern "C" __global__ void pick_ids(const int *given, const int *last, int *ids, int tokens, int places)
{
    wait_for_previous();
    int t = blockIdx.x * blockDim.x + threadIdx.x;
    if (t >= tokens)
        return;
    int id = given[t], place = -1 - id;
    ids[t] = id >= 0 ? id : place < places ? last[place] : 0;
}

extern "C" __global__ void put_tokens(const int *token, const int *place, int *last, int rows, int places)
{
    wait_for_previous();
    int r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r < rows && place[r] >= 0 && place[r] < places)
        last[place[r]] = token[r];
}
