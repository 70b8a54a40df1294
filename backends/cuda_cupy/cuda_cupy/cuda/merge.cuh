// The end of attention for one query token: partial results of warps, then of parts of the context,
// become one. A partial result is a running maximum of scores to base 2, the sum of weights relative
// to it, and SIZE weighted values.
#pragma once
#include "common.cuh"

constexpr float LOWEST = -1e30f; // instead of -inf, whose difference with itself is NaN

struct Partial { float peak, sum; };  // followed in scratch by SIZE weighted values

// Where a block is: query token t, the first of `mine` query heads, and its part of the context, of
// `live` that have positions and `splits` that the grid has.
struct Share { int t, head, mine, heads, part, live, splits; };

// Writes zeros: what a token of an empty sequence gets.
__device__ __forceinline__ void nothing_seen(A* out, long long row, int mine) {
    for (int i = threadIdx.x; i < mine * SIZE; i += blockDim.x) out[row * SIZE + i] = narrow<A>(0.f);
}

// Merges the warps' values and parts into out, or into scratch, of which the last block of a token
// and its heads to finish merges all parts in order. Each block calls it once, with all threads.
template <int N> __device__ __forceinline__ void
merge(const float (&values)[WARPS][N][SIZE], const Partial (&parts)[WARPS][N], Share share,
      A* out, float* scratch, int* arrived) {
    __shared__ float shares[N][32];  // of up to 32 parts
    __shared__ int last;
    const int tid = threadIdx.x, splits = share.splits, live = share.live;
    A* target = out + ((long long)share.t * share.heads + share.head) * SIZE;
    const long long slots = (long long)gridDim.x * share.heads * splits;  // partial results in scratch
    float* part_values = scratch + 2 * slots;
    const long long where = ((long long)share.t * share.heads + share.head) * splits;  // + h * splits + part
    for (int i = tid; i < share.mine * SIZE; i += WARPS * 32) {  // merge the warps
        const int h = i / SIZE, e = i % SIZE;
        float highest = LOWEST, sum = 0.f, weighted = 0.f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) highest = fmaxf(highest, parts[w][h].peak);
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            const float factor = exp2f(parts[w][h].peak - highest);
            sum = fmaf(parts[w][h].sum, factor, sum);
            weighted = fmaf(values[w][h][e], factor, weighted);
        }
        if (live == 1) {
            target[i] = narrow<A>(weighted / sum);
        } else {
            const long long at = where + h * splits + share.part;
            if (e == 0) ((Partial*)scratch)[at] = {highest, sum};
            part_values[at * SIZE + e] = weighted;
        }
    }
    if (live == 1) return;

    __threadfence();
    __syncthreads();
    if (tid == 0) {
        int* counter = arrived + share.t * gridDim.y + blockIdx.y;
        last = atomicAdd(counter, 1) == live - 1;
        if (last) *counter = 0;  // ready for the next run
    }
    __syncthreads();
    if (!last) return;
    __threadfence();
    const float2* done = (const float2*)scratch + where;  // Partials; what a part weighs, a lane a part
    for (int h = tid / 32; h < share.mine; h += WARPS) {
        const int p = tid % 32;
        const float2 part = p < live ? __ldcg(done + h * splits + p) : make_float2(LOWEST, 0.f);
        const float factor = exp2f(part.x - warp_max(part.x));
        shares[h][p] = factor / warp_sum(factor * part.y);
    }
    __syncthreads();
    for (int i = tid; i < share.mine * SIZE; i += WARPS * 32) {  // merge the parts of the context
        const int h = i / SIZE, e = i % SIZE;
        const float* from = part_values + (where + h * splits) * SIZE + e;
        float weighted = 0.f;
#pragma unroll 8
        for (int p = 0; p < live; p++) weighted = fmaf(__ldcg(from + p * SIZE), shares[h][p], weighted);
        target[i] = narrow<A>(weighted);
    }
}
