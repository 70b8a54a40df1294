// sample: one token of each sequence, after repetition penalty, temperature, top_k, top_p and min_p.
//
// Moves     the logits in, the penalised ones out and, from the L2 cache, in again: once or twice to
//           sample, four times more for top_k and for top_p.
// Threads   a block of 1024 a sequence, thread i on tokens i, i + 1024, ...; to sample, a warp takes one
//           run of 1/32 of the vocabulary.
// top_k and top_p ask for the least likely token that stays. Both are found byte by byte of a float's
// bits: a histogram of the leading byte over all tokens shows in which bin the limit falls, then of
// the next byte over the tokens in that bin, and so on, four times. The histogram counts tokens for
// top_k and their masses for top_p.
// A mass is a probability, relative to the largest, as a whole number of 2^-44. Sums of whole numbers do
// not depend on their order, so the token is the same every time, whichever thread is first.
// Without probabilities (the largest is NaN or infinite), or with nothing kept, it is the largest.
// Source    core/ops/sampling.py.
#include "numbers.cuh"
#include "best.cuh"
#include "random.cuh"
#include "teams.cuh"

typedef unsigned long long u64;

#define UNIT 17592186044416.f  // 2^44

// In the order of v / heat, which is divided after the largest is subtracted: so nothing overflows.
__device__ inline float ranked(float v, float heat)
{
    if (!(fabsf(heat) < INFINITE))
        return v / heat;
    return heat < 0 ? -v : v;
}

__device__ inline u64 mass_of(float ranked, float top, float heat)
{
    return (u64)(expf((ranked - top) / fabsf(heat)) * UNIT);
}

__device__ inline u64 warp_total(u64 v)
{
    for (int step = 16; step > 0; step /= 2)
        v += __shfl_xor_sync(EVERY_LANE, v, step);
    return v;
}

// The key at which the mass (or number) of tokens with larger keys first falls below `limit`, going
// down: tokens with larger keys stay, those with smaller ones do not. `above` is the mass of the larger.
__device__ unsigned find_limit(const float *row, int width, float top, float heat, unsigned least,
                               u64 limit, bool count, u64 *above)
{
    __shared__ u64 bins[256], sum_above;
    __shared__ unsigned prefix;
    if (threadIdx.x == 0) {
        prefix = 0;
        sum_above = 0;
    }
    for (int shift = 24; shift >= 0; shift -= 8) {
        if (threadIdx.x < 256)
            bins[threadIdx.x] = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < width; i += blockDim.x) {
            unsigned key = ordered(row[i]);
            if (key >= least && (shift == 24 || key >> (shift + 8) == prefix))
                atomicAdd(&bins[key >> shift & 255], count ? 1 : mass_of(row[i], top, heat));
        }
        __syncthreads();
        if (threadIdx.x < 32) {  // lane i sums bins 255 - 8 i to 248 - 8 i, then one lane goes through its own
            int lane = threadIdx.x, bin = 255 - 8 * lane;
            u64 own = 0, before = sum_above;
            for (int b = 0; b < 8; b++)
                own += bins[bin - b];
            u64 upto = own;
            for (int step = 1; step < 32; step *= 2) {
                u64 left = __shfl_up_sync(EVERY_LANE, upto, step);
                upto += lane >= step ? left : 0;
            }
            unsigned reached = __ballot_sync(EVERY_LANE, before + upto >= limit);
            __syncwarp();  // every lane has read sum_above
            if (lane == (reached ? __ffs(reached) - 1 : 31)) {
                u64 sum = before + upto - own;
                for (int last = bin - 7; bin > last && sum + bins[bin] < limit; bin--)
                    sum += bins[bin];
                sum_above = sum;
                prefix = prefix << 8 | bin;
            }
        }
        __syncthreads();
    }
    *above = sum_above;
    unsigned found = prefix;
    __syncthreads();
    return found;
}

extern "C" __global__ void __launch_bounds__(1024, 1)
sample(const A *logits, const float *temperature, const int *top_k, const float *top_p,
       const float *min_p, const float *penalty, const int *seeds, const int *positions, i8 *seen,
       int *out, float *ranks, int width)
{
    take_turn();
    __shared__ u64 runs[32];
    __shared__ int sampled;
    int s = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float *row = ranks + (long long)s * width, heat = temperature[s];
    best mine = nothing();
    for (int i = threadIdx.x; i < width; i += 1024) {
        float v = to_float(logits[(long long)s * width + i]);
        if (seen && seen[(long long)s * width + i])
            v = v > 0 ? v / penalty[s] : v * penalty[s];
        row[i] = v = heat == 0 ? v : ranked(v, heat);
        mine = better(mine, candidate(v, i));
    }
    mine = block_best(mine);  // the barriers in it also show every thread the whole row
    float top = row[mine.index];
    if (heat == 0 || !(fabsf(top) < INFINITE)) {
        if (threadIdx.x == 0) {
            out[s] = mine.index;
            if (seen)
                seen[(long long)s * width + mine.index] = 1;
        }
        return;
    }
    unsigned least = 1;  // keys below it are out
    u64 all = 0, before = 0;
    if (top_k[s] > 0 && top_k[s] < width)
        least = find_limit(row, width, top, heat, 1, top_k[s], true, &before);
    int run = (width + 1023) / 1024 * 32, begin = warp * run, end = min(width, begin + run);
    if (threadIdx.x == 0)
        sampled = width;
    u64 room = ~0ull;   // mass that tokens at `least` itself may come after, in order of index
    unsigned tied = 0;  // and that key
    if (top_p[s] < 1) {
        for (int i = begin + lane; i < end; i += 32)
            all += ordered(row[i]) >= least ? mass_of(row[i], top, heat) : 0;
        all = warp_total(all);
        if (lane == 0)
            runs[warp] = all;
        __syncthreads();
        all = warp_total(runs[lane]);
        u64 limit = top_p[s] > 0 ? (u64)ceil((double)top_p[s] * (double)all) : 0;
        __syncthreads();
        tied = find_limit(row, width, top, heat, least, limit > 0 ? limit : 1, false, &before);
        least = max(least, tied);
        room = limit > before ? limit - before : 0;
    }
    // of tokens tied at the limit, those stay whose equals before them leave room
    u64 one = tied ? mass_of(__uint_as_float(tied >> 31 ? tied & 0x7fffffff : ~tied), top, heat) : 0;
    u64 first_ties = tied && one ? (room + one - 1) / one : ~0ull;
    u64 floor = min_p[s] > 0 ? (u64)ceil(fmin(min_p[s], 2.f) * (double)UNIT) : 0;

    // what each run holds: its mass, and how many tokens tied at the limit lie before it
    __shared__ unsigned ties[32];
    unsigned count = 0;
    for (int i = begin + lane; tied && i < end; i += 32)
        count += ordered(row[i]) == tied;
    count = (unsigned)warp_total(count);
    if (lane == 0)
        ties[warp] = count;
    __syncthreads();
    u64 ties_before = 0;
    for (int w = 0; w < warp; w++)
        ties_before += ties[w];
    u64 target = 0;
    for (int pass = 0; pass < 2; pass++) {  // first the runs' masses, then the token in its run
        u64 sum = 0, tie_count = ties_before;
        for (int w = 0; pass == 1 && w < warp; w++)
            sum += runs[w];
        for (int base = begin; base < end; base += 32) {
            int i = base + lane;
            unsigned key = i < end ? ordered(row[i]) : 0;
            unsigned tie = __ballot_sync(EVERY_LANE, tied && key == tied);
            u64 rank = tie_count + __popc(tie & ((1u << lane) - 1));
            u64 mass = key && key >= least ? mass_of(row[i], top, heat) : 0;
            if (mass < floor || (tied && key == tied && rank >= first_ties))
                mass = 0;
            tie_count += __popc(tie);
            u64 upto = mass;  // of this token and those before it in the 32
            for (int step = 1; step < 32; step *= 2) {
                u64 left = __shfl_up_sync(EVERY_LANE, upto, step);
                upto += lane >= step ? left : 0;
            }
            unsigned past = __ballot_sync(EVERY_LANE, pass == 1 && sum + upto > target);
            if (past && lane == 0)
                atomicMin(&sampled, base + __ffs(past) - 1);
            if (past)
                break;
            sum += __shfl_sync(EVERY_LANE, upto, 31);
        }
        if (pass == 0) {
            __syncthreads();
            if (lane == 0)
                runs[warp] = sum;
            __syncthreads();
            float u = uniform(seeds[2 * s], seeds[2 * s + 1], positions[s]);
            // u is a whole number of 2^-24, so this product is exact to the last unit
            u64 kept = warp_total(runs[lane]), parts = (u64)(u * 16777216.f);
            target = (kept >> 24) * parts + ((kept & 16777215) * parts >> 24);
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        int token = sampled < width ? sampled : mine.index;
        out[s] = token;
        if (seen)
            seen[(long long)s * width + token] = 1;
    }
}
