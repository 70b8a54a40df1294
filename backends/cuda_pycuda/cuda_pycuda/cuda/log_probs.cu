// log_probs: of one token a row its log-probability and rank, and the n likeliest with theirs.
//
// Moves     the logits in, twice: for the largest and the rank, then, from the L2 cache, for the sum.
// Threads   a block of 1024 a row, thread i on tokens i, i + 1024, ...
// Each thread knows the best of its own tokens. The best of the block is the likeliest; the warp of its
// owner then looks through the owner's tokens for the next best one, and so on, n times.
// The largest term of the sum, 1, is left to log1p: what is near 0 keeps its digits.
// Source    core/ops/logits.py.
#include "numbers.cuh"
#include "best.cuh"
#include "teams.cuh"

extern "C" __global__ void __launch_bounds__(1024, 1)
log_probs(const A *logits, const int *token, float *chosen, int *rank, int *top_ids, float *top,
          int width, int n)
{
    take_turn();
    int r = blockIdx.x, lane = threadIdx.x % 32, id = token[r];
    const A *row = logits + (long long)r * width;
    bool known = id >= 0 && id < width;
    unsigned key = known ? ordered(to_float(row[id])) : 0;
    best mine = nothing();
    int larger = 0;
    for (int i = threadIdx.x; i < width; i += 1024) {
        best b = candidate(to_float(row[i]), i);
        larger += b.key > key;
        mine = better(mine, b);
    }
    best first = block_best(mine);
    float peak = to_float(row[first.index]), rest = 0;
    for (int i = threadIdx.x; i < width; i += 1024)
        rest += i == first.index ? peak - peak : expf(to_float(row[i]) - peak);
    rest = log1pf(block_sum(rest));
    float above = block_sum((float)larger);  // below 2^24, so the sum is exact
    if (threadIdx.x == 0) {
        chosen[r] = known ? to_float(row[id]) - peak - rest : INFINITE - INFINITE;
        rank[r] = known ? 1 + (int)above : 0;
    }
    for (int k = 0; k < n; k++) {
        if (k > 0)
            first = block_best(mine);
        if (threadIdx.x == 0) {
            top_ids[(long long)r * n + k] = first.index;
            top[(long long)r * n + k] = to_float(row[first.index]) - peak - rest;
        }
        int owner = first.index % 1024;
        if (threadIdx.x / 32 != owner / 32)
            continue;
        best next = nothing();
        for (int i = owner + 1024 * lane; i < width; i += 1024 * 32) {
            best b = candidate(to_float(row[i]), i);
            if (b.key < first.key || (b.key == first.key && b.index > first.index))
                next = better(next, b);
        }
        next = warp_best(next);
        if (threadIdx.x == owner)
            mine = next;
    }
}
