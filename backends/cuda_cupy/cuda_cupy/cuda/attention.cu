// attention, one query token at a time: for decode steps, and for what the tiled kernel does not take.
// Moves the keys and values that the token sees once for each block of HEADS query heads.
//
// A block takes one query token, HEADS query heads of one key/value head, and one part of the context;
// LANES lanes share a position, each with SIZE / LANES elements of it, so a block works on GROUPS
// positions at a time. Each group keeps its own running maximum, sum and weighted values (online
// softmax), which are merged through shuffles, then shared memory. The number of parts depends on
// shapes alone and their length on the sequence: parts beyond its end leave at once, and a context of
// one part needs no merging. The last block of a token and head to finish merges the parts, in order.
#include "merge.cuh"
#include "position.cuh"

constexpr int GROUPS = WARPS * 32 / LANES;
constexpr int AHEAD = sizeof(Row) <= 64 ? 2 : 1;
constexpr int SPAN = 512;        // positions below which splitting the context does not pay

extern "C" __global__ void __launch_bounds__(WARPS * 32)
attention(const A* q, const C* cache, const float* scales, const int* table, const int* starts,
          const int* lengths, A* out, float* scratch, int* arrived, int sequences, int width,
          int heads, int kv_heads, long long side_step, float scale) {
    __shared__ float values[WARPS][HEADS][SIZE];
    __shared__ Partial parts[WARPS][HEADS];
    pdl_launch();
    const int t = blockIdx.x, group_size = heads / kv_heads, chunks = (group_size + HEADS - 1) / HEADS;
    const int kv_head = blockIdx.y / chunks, first = blockIdx.y % chunks * HEADS;
    const int mine = min(HEADS, group_size - first), head = kv_head * group_size + first;
    const int tid = threadIdx.x, warp = tid / 32, lane = tid % LANES, splits = gridDim.z;
    const Query query = locate(t, starts, lengths, sequences, width * BLOCK);
    const int even = (query.seen + splits - 1) / splits;
    const int span = max(SPAN, (even + GROUPS - 1) / GROUPS * GROUPS);
    const int begin = blockIdx.z * span, end = min(query.seen, begin + span);
    const int live = (query.seen + span - 1) / span;
    if (begin >= end) {
        pdl_wait();
        if (query.seen == 0 && blockIdx.z == 0) nothing_seen(out, t * heads + head, mine);
        return;
    }
    table += (long long)query.sequence * width;
    auto slot = [&](int base) { return slot_of(table, min(base + tid / LANES, end - 1)); };
    long long places[AHEAD], after = slot(begin + AHEAD * GROUPS);
#pragma unroll
    for (int i = 0; i < AHEAD; i++) places[i] = slot(begin + i * GROUPS);
    pdl_wait();  // lengths and tables are older than this step: see step.cu

    float qs[HEADS][E], sums[HEADS][E], peak[HEADS], total[HEADS];
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        peak[h] = LOWEST;
        total[h] = 0.f;
#pragma unroll
        for (int e = 0; e < E; e++) {
            sums[h][e] = 0.f;  // scores are taken to base 2
            qs[h][e] = widen(q[((long long)t * heads + head + min(h, mine - 1)) * SIZE + lane * E + e])
                     * (scale * 1.44269504088896f);
        }
    }
    Place next[AHEAD];  // on their way while one is computed, as is the look-up of the one after them
    auto load = [&](int i, long long at) {
        next[i].load(cache, scales, at, lane, side_step, kv_heads, kv_head);
    };
#pragma unroll
    for (int i = 0; i < AHEAD; i++) load(i, places[i]);
    for (int base = begin; base < end; base += GROUPS) {
        const bool valid = base + tid / LANES < end;
        const Place here = next[0];
        if (AHEAD > 1) next[0] = next[AHEAD - 1];
        if (base + AHEAD * GROUPS < end) load(AHEAD - 1, after);
        after = slot(base + (AHEAD + 1) * GROUPS);
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            float score = 0.f;
#pragma unroll
            for (int e = 0; e < E; e++) score = fmaf(qs[h][e], here.key[e], score);
#pragma unroll
            for (int step = LANES / 2; step > 0; step >>= 1)
                score += __shfl_xor_sync(~0u, score, step);
            score *= here.key_scale;
            const float higher = valid ? fmaxf(peak[h], score) : peak[h];
            const float rescale = exp2f(peak[h] - higher);
            const float weight = valid ? exp2f(score - higher) : 0.f;
            peak[h] = higher;
            total[h] = fmaf(total[h], rescale, weight);
#pragma unroll
            for (int e = 0; e < E; e++)
                sums[h][e] = fmaf(sums[h][e], rescale, weight * here.value_scale * here.value[e]);
        }
    }

#pragma unroll
    for (int h = 0; h < HEADS; h++) {  // merge the groups of a warp
        float highest = peak[h];
#pragma unroll
        for (int step = 16; step >= LANES; step >>= 1)
            highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, step));
        const float factor = exp2f(peak[h] - highest);
        total[h] *= factor;
#pragma unroll
        for (int step = 16; step >= LANES; step >>= 1)
            total[h] += __shfl_xor_sync(~0u, total[h], step);
#pragma unroll
        for (int e = 0; e < E; e++) {
            sums[h][e] *= factor;
#pragma unroll
            for (int step = 16; step >= LANES; step >>= 1)
                sums[h][e] += __shfl_xor_sync(~0u, sums[h][e], step);
            if (tid % 32 < LANES) values[warp][h][lane * E + e] = sums[h][e];
        }
        if (tid % 32 == 0) parts[warp][h] = {highest, total[h]};
    }
    __syncthreads();

    merge(values, parts, {t, head, mine, heads, (int)blockIdx.z, live, splits}, out, scratch, arrived);
}
