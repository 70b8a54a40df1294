// log_probs: log-probability and rank of one token of each row of logits [R, V], and the `n` likeliest
// tokens, one block a row. Moves the row twice, the second time from L2.
//
// Every thread keeps the best rank among its own tokens (i = thread, thread + 1024, ...). Then the first
// warp alone takes the best of those n times, and after each looks up what its thread has next, while
// the other warps sum exponentials: no barrier between one of the likeliest and the next.
// The sum is without its largest term, which is 1: so log1p keeps the digits of what is near 0.
#include "rank.cuh"

constexpr int THREADS = 1024, MOST_TOP = 20;

// Writes the n best ranks to `top`; `bests` holds each thread's best, and changes. One warp calls it.
__device__ __forceinline__ void take_best(const A* row, u64* bests, u64* top, int width, int n) {
    const int lane = threadIdx.x;
    auto best_of_mine = [&] {
        u64 best = 0;
        for (int t = lane; t < THREADS; t += 32) best = larger(best, bests[t]);
        return best;
    };
    u64 mine = best_of_mine();
    for (int k = 0; k < n; k++) {
        const u64 best = warp_largest(mine);
        const int thread = index_of(best) % THREADS;
        u64 next = 0;
        for (int i = thread + THREADS * lane; i < width; i += THREADS * 32) {
            const u64 other = rank(widen(row[i]), i);
            if (other < best) next = larger(next, other);
        }
        next = warp_largest(next);
        if (lane == thread % 32) {  // the only lane that reads it
            bests[thread] = next;
            mine = best_of_mine();
        }
        if (lane == 0) top[k] = best;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
log_probs(const A* logits, const int* tokens, float* chosen, int* ranks, int* top_ids, float* top_probs,
          int width, int n) {
    __shared__ u64 bests[THREADS], top[MOST_TOP];
    pdl();
    const int r = blockIdx.x, tid = threadIdx.x, token = tokens[r];
    const A* row = logits + (long long)r * width;
    const bool known = token >= 0 && token < width;
    const u64 above = known ? rank(widen(row[token]), 0) | 0xFFFFFFFFu : 0;  // equal ones are not
    u64 best = 0;
    int count = 0;
    for (int i = tid; i < width; i += THREADS) {
        const u64 other = rank(widen(row[i]), i);
        count += other > above;
        best = larger(best, other);
    }
    bests[tid] = best;
    best = block_largest(best);  // its barriers show the first warp all of `bests`
    if (tid < 32) take_best(row, bests, top, width, n);
    const int likeliest = index_of(best);
    const float peak = widen(row[likeliest]);
    float rest = peak - peak;  // 0, or NaN where there are no probabilities
    for (int i = tid; i < width; i += THREADS)
        if (i != likeliest) rest += expf(widen(row[i]) - peak);
    rest = log1pf(block_sum(rest));
    const float before = block_sum((float)count);  // whole numbers below 2^24: exact
    if (tid == 0) {
        chosen[r] = known ? widen(row[token]) - peak - rest : __int_as_float(0x7FC00000);
        ranks[r] = known ? 1 + (int)before : 0;
    }
    if (tid < n) {
        const int id = index_of(top[tid]);
        top_ids[(long long)r * n + tid] = id;
        top_probs[(long long)r * n + tid] = widen(row[id]) - peak - rest;
    }
}
