// sample: one token from each row of logits [S, V], one block a row, in float64 so that it is the
// definition's. Moves the row once, and float64 probabilities (in scratch, which stay in L2 for few rows)
// five times, three times more for top_k, and four for top_p (choose.cuh).
//
// Where the largest is NaN or infinite there are no probabilities, and limits may keep nothing: then it
// is the largest. Probabilities are summed for top_p in units of 2^-60: integer sums do not depend on
// their order.
#include "choose.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
sample(const A* logits, const float* temperatures, const int* top_ks, const float* top_ps,
       const float* min_ps, const float* penalties, const u32* seeds, const int* positions, i8* seen,
       int* out, double* scratch, int width) {
    __shared__ double masses[WARPS];
    __shared__ int ties[WARPS];
    __shared__ int sampled;
    pdl();
    const int s = blockIdx.x, tid = threadIdx.x, warp = tid / 32, lane = tid % 32;
    const double temperature = temperatures[s], penalty = penalties[s];
    double* p = scratch + (long long)s * width;
    if (seen) seen += (long long)s * width;

    Best best{0, width};
    for (int i = tid; i < width; i += THREADS) {
        double x = widen(logits[(long long)s * width + i]);
        if (seen && seen[i]) x = x > 0 ? x / penalty : x * penalty;
        if (temperature != 0) x /= temperature;
        p[i] = x;
        if (ordered(x) > best.key) best = {ordered(x), i};
    }
    best = block_best(best);  // its barriers also order the writes to p
    const double peak = p[best.index];
    if (temperature == 0 || !(fabs(peak) < __longlong_as_double(0x7FF0000000000000ll))) {
        if (tid == 0) {
            out[s] = best.index;
            if (seen) seen[best.index] = 1;
        }
        return;
    }
    __syncthreads();  // p changes below
    u64 above, floor_key = 0;
    const int top_k = top_ks[s];
    if (top_k > 0 && top_k < width)
        floor_key = select(width, top_k - 1, above, [&](int i) { return ordered(p[i]); },
                           [](int) { return 1ull; });
    double total = 0;
    for (int i = tid; i < width; i += THREADS) {
        p[i] = ordered(p[i]) >= floor_key ? exp(p[i] - peak) : 0;
        total += p[i];
    }
    total = block_total(total);
    for (int i = tid; i < width; i += THREADS) p[i] /= total;

    // top_p keeps what is more likely than `limit`, and the first `equal` of what is as likely
    double limit = -1;
    u64 equal = 0;
    const double top_p = top_ps[s];
    if (top_p < 1) {
        const u64 target = top_p > 0 ? (u64)(top_p * UNIT) : 0;
        const u64 key = select(width, target > 0 ? target - 1 : 0, above,
                               [&](int i) { return (u64)__double_as_longlong(p[i]); },
                               [&](int i) { return (u64)(p[i] * UNIT); });
        limit = __longlong_as_double(key);
        const u64 each = (u64)(limit * UNIT);
        equal = each ? (max(target, above + 1) - above + each - 1) / each : ~0ull;
    }
    const double least = min_ps[s] > 0 ? min_ps[s] * (1.0 / total) : 0;  // the largest probability is 1 / total
    __syncthreads();

    // each warp takes a run of tokens, so that running sums go by index
    const int share = (width + WARPS - 1) / WARPS, begin = min(width, warp * share);
    const int end = min(width, begin + share);
    int count = 0;
    if (top_p < 1)
        for (int i = begin + lane; i < end; i += 32) count += p[i] == limit;
    count = warp_total(count);
    if (lane == 0) ties[warp] = count;
    __syncthreads();
    u64 before = 0;
    for (int w = 0; w < warp; w++) before += ties[w];
    double mass = 0;
    for (int base = begin; base < end; base += 32) {
        const int i = base + lane;
        const double x = i < end ? p[i] : 0;
        const bool tie = i < end && x == limit;
        const u32 ballot = __ballot_sync(~0u, tie);
        const u64 rank = before + __popc(ballot & ((1u << lane) - 1));
        before += __popc(ballot);
        const bool kept = i < end && x >= least && (x > limit || (tie && rank < equal));
        if (i < end) p[i] = kept ? x : 0;
        mass += kept ? x : 0;
    }
    mass = warp_total(mass);
    if (lane == 0) masses[warp] = mass;
    if (tid == 0) sampled = -1;
    __syncthreads();
    double all = 0, running = 0;
    for (int w = 0; w < WARPS; w++) all += masses[w];
    for (int w = 0; w < warp; w++) running += masses[w];
    const double goal = all * uniform(seeds[2 * s], seeds[2 * s + 1], positions[s]);
    // the warp whose run the goal falls into walks it; ends are computed alike on both sides
    if (running <= goal && goal < running + mass) {
        int token = -1, final = -1;
        for (int base = begin; base < end && token < 0; base += 32) {
            const int i = base + lane;
            double sum = i < end ? p[i] : 0;
            const u32 positive = __ballot_sync(~0u, sum > 0);
            if (positive) final = base + 31 - __clz(positive);
#pragma unroll
            for (int step = 1; step < 32; step <<= 1) {
                const double o = __shfl_up_sync(~0u, sum, step);
                if (lane >= step) sum += o;
            }
            const u32 past = __ballot_sync(~0u, running + sum > goal);
            if (past) token = base + __ffs(past) - 1;
            running += __shfl_sync(~0u, sum, 31);
        }
        if (lane == 0) sampled = token >= 0 ? token : final;  // rounding may hide the last crossing
    }
    __syncthreads();
    if (tid == 0) {
        const int token = sampled >= 0 ? sampled : best.index;
        out[s] = token;
        if (seen) seen[token] = 1;
    }
}
