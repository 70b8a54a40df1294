// sample: one token from each row of logits [S, V], in float64 so that it is the definition's.
//
// sample_runs: a warp takes RUN logits, and keeps their largest and the sum of exponentials relative to it.
// sample: a block takes a row. Without limits the sums say in which run the token lies, and only that run
// is read again. top_k, top_p and min_p are settled among candidates, the logits that may be kept: a run
// whose largest is none is not read. Where more than half of a row are candidates, all of it is taken.
//
// Where the largest is NaN or infinite there are no probabilities, and limits may keep nothing: then it
// is the largest. Probabilities are summed for top_p in units of 2^-60: integer sums do not depend on
// their order.
#include "choose.cuh"

constexpr int RUN = 512, RUNS = 8;  // logits of a warp, warps of a block of sample_runs

struct Run { u64 key; double sum; long long index; };

__device__ __forceinline__ double infinite() { return __longlong_as_double(0x7FF0000000000000ll); }

struct Row {
    const A* logits;
    const i8* seen;
    Quotient temperature, penalty;
    __device__ Row(const A* logits, const i8* seen, const float* temperatures, const float* penalties,
                   long long width)
        : logits(logits + blockIdx.y * width), seen(seen ? seen + blockIdx.y * width : seen),
          temperature(temperatures[blockIdx.y]), penalty(penalties[blockIdx.y]) {}
    __device__ __forceinline__ double adjusted(A logit, int i) const {
        double x = widen(logit);
        if (seen && seen[i]) x = x > 0 ? penalty(x) : x * penalty.by;
        return greedy() ? x : temperature(x);
    }
    __device__ __forceinline__ bool greedy() const { return temperature.by == 0; }
    __device__ __forceinline__ double operator()(int i) const { return adjusted(logits[i], i); }
};

extern "C" __global__ void __launch_bounds__(32 * RUNS)
sample_runs(const A* logits, const float* temperatures, const float* penalties, const i8* seen,
            double* scratch, int width, int runs) {
    pdl();
    const int r = blockIdx.x * RUNS + threadIdx.x / 32, first = r * RUN + threadIdx.x % 32;
    if (r >= runs) return;
    const Row row(logits, seen, temperatures, penalties, width);
    A held[RUN / 32];  // all on their way before the first is divided
#pragma unroll
    for (int j = 0; j < RUN / 32; j++)
        if (first + 32 * j < width) held[j] = row.logits[first + 32 * j];
    double x[RUN / 32], sum = 0;
    Best best{0, width};
#pragma unroll
    for (int j = 0; j < RUN / 32; j++) {
        const int i = first + 32 * j;
        x[j] = i < width ? row.adjusted(held[j], i) : -infinite();
        if (i < width) best = better(best, {ordered(x[j]), i});
    }
    best = warp_best(best);
    const double peak = unordered(best.key);
    if (!row.greedy() && peak > -infinite())
#pragma unroll
        for (int j = 0; j < RUN / 32; j++) sum += exp(x[j] - peak);
    sum = warp_total(sum);
    if (threadIdx.x % 32 == 0)
        ((Run*)(scratch + blockIdx.y * (width + 3ll * runs) + width))[r] = {best.key, sum, best.index};
}

extern "C" __global__ void __launch_bounds__(THREADS)
sample(const A* logits, const float* temperatures, const int* top_ks, const float* top_ps,
       const float* min_ps, const float* penalties, const u32* seeds, const int* positions, i8* seen,
       int* out, double* scratch, int width, int runs) {
    __shared__ double masses[WARPS];
    __shared__ int counts[WARPS];
    __shared__ int sampled;
    __shared__ u64 least_key;
    pdl();
    const int s = blockIdx.y, tid = threadIdx.x, warp = tid / 32, lane = tid % 32;
    const Row row(logits, seen, temperatures, penalties, width);
    double* p = scratch + s * (width + 3ll * runs);
    const Run* run = (const Run*)(p + width);
    if (seen) seen += (long long)s * width;

    Best best{0, width};
    for (int r = tid; r < runs; r += THREADS) best = better(best, {run[r].key, (int)run[r].index});
    best = block_best(best);
    const double peak = unordered(best.key);
    const float top_p = top_ps[s], min_p = min_ps[s];
    auto finish = [&](int token) {
        out[s] = token;
        if (seen) seen[token] = 1;
    };
    if (row.greedy() || !(fabs(peak) < infinite())) {
        if (tid == 0) finish(best.index);
        return;
    }
    auto mass = [&](int r) { return run[r].sum * exp(unordered(run[r].key) - peak); };
    double total = 0;
    for (int r = tid; r < runs; r += THREADS) total += mass(r);
    total = block_total(total);
    const float u = uniform(seeds[2 * s], seeds[2 * s + 1], positions[s]);
    const bool ranked = top_ks[s] > 0 && top_ks[s] < width, limited = top_p < 1;
    if (!ranked && !limited && !(min_p > 0)) {
        if (warp > 0) return;
        double running = 0;  // u is at most 1 - 2^-24: no rounding leaves the goal behind the last run
        const int r = walk(0, runs, total * u, running, mass);
        const int token = walk(r * RUN, min(width, (r + 1) * RUN), total * u, running,
                               [&](int i) { return exp(row(i) - peak); });
        if (lane == 0) finish(token);
        return;
    }

    // Candidates are at or above a key. The k largest lie at or above the k-th largest of the runs'
    // largest. top_p keeps all that is left without tokens of which `width` would have half of the rest.
    if (tid == 0)
        least_key = ranked ? 0 : ordered(peak + (limited ? log((1 - fmax((double)top_p, 0.)) / 2 * total / width)
                                                         : log((double)min_p) - 1e-3));
    __syncthreads();
    if (ranked && top_ks[s] <= runs)
        for (int r = tid; r < runs; r += THREADS) {
            int larger = 0;
            for (int q = 0; q < runs; q++)
                larger += run[q].key > run[r].key || (run[q].key == run[r].key && q < r);
            if (larger == top_ks[s] - 1) least_key = run[r].key;
        }
    __syncthreads();
    int* list = (int*)(p + width / 2);
    const int most = (runs + WARPS - 1) / WARPS, last = min(runs, (warp + 1) * most);
    int n = 0, at = 0;
    for (int turn = 0; turn < 2; turn++) {  // count, then write; each warp in its runs
        for (int r = warp * most; r < last; r++) {
            if (run[r].key < least_key) continue;
            for (int i = r * RUN + lane; i < (r + 1) * RUN; i += 32) {
                const double x = i < width ? row(i) : 0;
                const u32 kept = __ballot_sync(~0u, i < width && ordered(x) >= least_key);
                const int place = at + __popc(kept & ((1u << lane) - 1));
                if (turn == 1 && kept >> lane & 1) {
                    p[place] = x;
                    list[place] = i;
                }
                at += __popc(kept);
            }
        }
        if (turn == 1) break;
        if (lane == 0) counts[warp] = at;
        __syncthreads();
        at = 0;
        for (int w = 0; w < WARPS; w++) {
            if (w == warp) at = n;
            n += counts[w];
        }
        if (n > width / 2) break;
    }
    if (n > width / 2) {
        n = width;
        list = nullptr;
#pragma unroll 4
        for (int i = tid; i < width; i += THREADS) p[i] = row(i);
    }
    __syncthreads();

    u64 above, floor_key = 0;
    if (ranked) {
        floor_key = select(n, top_ks[s] - 1, above, [&](int i) { return ordered(p[i]); },
                           [](int) { return 1ull; });
        total = 0;
    }
#pragma unroll 4
    for (int i = tid; i < n; i += THREADS) {
        p[i] = ordered(p[i]) >= floor_key ? exp(p[i] - peak) : 0;
        if (ranked) total += p[i];
    }
    if (ranked) total = block_total(total);
    const double highest = 1 / total;  // the largest probability
#pragma unroll 4
    for (int i = tid; i < n; i += THREADS) p[i] *= highest;

    // top_p keeps what is more likely than `limit`, and the first `equal` of what is as likely
    double limit = -1;
    u64 equal = 0;
    if (limited) {
        const u64 target = top_p > 0 ? (u64)((double)top_p * UNIT) : 0;
        const u64 key = select(n, target > 0 ? target - 1 : 0, above,
                               [&](int i) { return (u64)__double_as_longlong(p[i]); },
                               [&](int i) { return (u64)(p[i] * UNIT); });
        limit = __longlong_as_double(key);
        const u64 each = (u64)(limit * UNIT);
        equal = each ? (max(target, above + 1) - above + each - 1) / each : ~0ull;
    }
    const double least = min_p > 0 ? min_p * highest : 0;
    __syncthreads();

    // each warp takes a run of candidates, so that running sums go by index
    const int share = (n + WARPS - 1) / WARPS, begin = min(n, warp * share), end = min(n, begin + share);
    int count = 0;
    if (limited)
        for (int i = begin + lane; i < end; i += 32) count += p[i] == limit;
    count = warp_total(count);
    if (lane == 0) counts[warp] = count;
    __syncthreads();
    u64 before = 0;
    for (int w = 0; w < warp; w++) before += counts[w];
    double kept_mass = 0;
    for (int base = begin; base < end; base += 32) {
        const int i = base + lane;
        const double x = i < end ? p[i] : 0;
        const bool tie = i < end && x == limit;
        const u32 ballot = __ballot_sync(~0u, tie);
        const u64 rank = before + __popc(ballot & ((1u << lane) - 1));
        before += __popc(ballot);
        const bool kept = i < end && x >= least && (x > limit || (tie && rank < equal));
        if (i < end) p[i] = kept ? x : 0;
        kept_mass += kept ? x : 0;
    }
    kept_mass = warp_total(kept_mass);
    if (lane == 0) masses[warp] = kept_mass;
    if (tid == 0) sampled = -1;
    __syncthreads();
    double all = 0, running = 0;
    for (int w = 0; w < WARPS; w++) all += masses[w];
    for (int w = 0; w < warp; w++) running += masses[w];
    // the warp whose candidates the goal falls into walks them; ends are computed alike on both sides
    if (running <= all * u && all * u < running + kept_mass) {
        const int token = walk(begin, end, all * u, running, [&](int i) { return p[i]; });
        if (lane == 0) sampled = token;  // rounding may hide the last crossing
    }
    __syncthreads();
    if (tid == 0) finish(sampled < 0 ? best.index : list ? list[sampled] : sampled);
}
