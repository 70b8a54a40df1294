// attention, one query at a time: out = softmax(q k^T * scale) v over the positions that it sees.
//
// Moves     keys and values once for each token and block of HEADS query heads: 2 * SIZE * sizeof(C)
//           bytes a position. For a decode step that is little, so the work must be spread widely.
// Threads   a block takes one token, HEADS of the query heads that share a key/value head, and one of
//           `splits` runs of positions. LANES lanes form a team; a team takes a position, each lane
//           eight numbers of its key, and the team adds up the HEADS scores by shuffles.
//
//               warp       |  team 0   |  team 1   |  team 2   |  team 3   |      (SIZE 64: 8 lanes)
//               position   |   p       |   p + 1   |   p + 2   |   p + 3   |  then all on by
//               key        | 8 x 8 nrs | 8 x 8 nrs | ...                      4 * WARPS * AHEAD
//
//           Each team keeps a running maximum, sum and weighted sum of values (online softmax), so
//           no score is stored. Teams are put together in shared memory, the runs by the block that
//           comes last, which costs more than some more positions: a run has at least SPAN of them,
//           whatever `splits` was planned for.
// Source    core/ops/attention.py; Milakov and Gimelshein 2018, https://arxiv.org/abs/1805.02867;
//           Flash-Decoding, https://crfm.stanford.edu/2023/10/12/flashdecoding.html.
#include "numbers.cuh"
#include "paged.cuh"
#include "teams.cuh"

#define PER 8              // numbers of a head in a lane
#define AHEAD (CODES || SIZE % 8 ? 2 : 4)  // positions that a team loads before it uses the first
#define SPAN 128
#define TEAMS (32 / LANES) // in a warp
#define STATES (WARPS * TEAMS)
#define PARTIAL (STATES > 32 ? STATES : 32)  // results to put together: of states, or of 32 runs

// The lane's eight numbers of a head; 0 beyond its end.
#define LOAD_PART(T)                                                          \
    __device__ inline void load_part(const T *head, int part, float *out)     \
    {                                                                         \
        if (SIZE % PER == 0 && part < SIZE)                                   \
            load8(head + part, out);                                          \
        else                                                                  \
            for (int i = 0; i < PER; i++)                                     \
                out[i] = part + i < SIZE ? to_float(head[part + i]) : 0;      \
    }
LOAD_PART(float)
LOAD_PART(f16)
LOAD_PART(bf16)
LOAD_PART(i8)

__device__ inline float shrink(float from, float to) { return from == -INFINITE ? 0 : expf(from - to); }

// Put `count` partial results of a head together, by a warp: each maximum becomes the factor that scales
// what belongs to it, and the whole has this maximum and total.
__device__ inline void weigh(float *tops, const float *totals, int count, float *top, float *total)
{
    float highest = -INFINITE, all = 0;
    for (int n = threadIdx.x % 32; n < count; n += 32)
        highest = fmaxf(highest, tops[n]);
    highest = warp_max(highest);
    for (int n = threadIdx.x % 32; n < count; n += 32) {
        tops[n] = shrink(tops[n], highest);
        all += tops[n] * totals[n];
    }
    *top = highest;
    *total = warp_sum(all);
}

extern "C" __global__ void __launch_bounds__(32 * WARPS, 2)
attention(const A *q, const C *cache, const float *scales, const int *table, const int *starts,
          const int *lens, A *out, float *parts, int *counters, int sequences, int width, int heads,
          int kv_heads, long long side, float scale)
{
    let_next_start();
    __shared__ float sums[STATES][HEADS][SIZE];
    __shared__ float tops[HEADS][PARTIAL], totals[HEADS][PARTIAL], whole_top[HEADS], whole[HEADS];
    batch b = {table, starts, lens, sequences, width};
    int token = blockIdx.x, group = heads / kv_heads, shares = (group + HEADS - 1) / HEADS;
    int kv_head = blockIdx.y / shares, first = kv_head * group + blockIdx.y % shares * HEADS;
    int count = min(HEADS, (kv_head + 1) * group - first);  // query heads of this block
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, team = lane / LANES;
    int part = lane % LANES * PER, s = sequence_of(b, token), seen = positions_seen(b, s, token);
    int runs = max(1, min((int)gridDim.z, (seen + SPAN - 1) / SPAN));
    wait_for_previous();
    if (blockIdx.z >= runs)
        return;
    int run = (seen + runs - 1) / runs, begin = blockIdx.z * run, end = min(seen, begin + run);
    const A *queries = q + ((long long)token * heads + first) * SIZE;

    float query[HEADS][PER], sum[HEADS][PER], top[HEADS], total[HEADS];
    for (int h = 0; h < HEADS; h++) {
        top[h] = -INFINITE;
        total[h] = 0;
        load_part(queries + min(h, count - 1) * SIZE, part, query[h]);
        for (int i = 0; i < PER; i++)
            sum[h][i] = 0;
    }
    for (int base = begin + warp * TEAMS * AHEAD; base < end; base += STATES * AHEAD) {
        float key[AHEAD][PER], value[AHEAD][PER];
        #pragma unroll
        for (int n = 0; n < AHEAD; n++) {
            int position = base + n * TEAMS + team;
            if (position < end) {
                long long row = cache_row(b, s, position, kv_head, kv_heads);
                load_part(cache + row * SIZE, part, key[n]);
                load_part(cache + side + row * SIZE, part, value[n]);
#if CODES
                float key_scale = scales[row], value_scale = scales[side / SIZE + row];
                for (int i = 0; i < PER; i++) {
                    key[n][i] *= key_scale;
                    value[n][i] *= value_scale;
                }
#endif
            } else {
                for (int i = 0; i < PER; i++)
                    key[n][i] = value[n][i] = 0;
            }
        }
        #pragma unroll
        for (int h = 0; h < HEADS; h++) {
            float score[AHEAD], highest = top[h];
            #pragma unroll
            for (int n = 0; n < AHEAD; n++) {
                score[n] = 0;
                for (int i = 0; i < PER; i++)
                    score[n] += query[h][i] * key[n][i];
                for (int step = LANES / 2; step > 0; step /= 2)
                    score[n] += __shfl_xor_sync(EVERY_LANE, score[n], step);
                score[n] = base + n * TEAMS + team < end ? score[n] * scale : -INFINITE;
                highest = fmaxf(highest, score[n]);
            }
            float old = shrink(top[h], highest);
            top[h] = highest;
            total[h] *= old;
            for (int i = 0; i < PER; i++)
                sum[h][i] *= old;
            #pragma unroll
            for (int n = 0; n < AHEAD; n++) {
                float weight = shrink(score[n], highest);
                total[h] += weight;
                for (int i = 0; i < PER; i++)
                    sum[h][i] += weight * value[n][i];
            }
        }
    }
    int state = warp * TEAMS + team;
    for (int h = 0; h < HEADS; h++) {
        if (part == 0) {
            tops[h][state] = top[h];
            totals[h][state] = total[h];
        }
        for (int i = 0; i < PER; i++)
            if (part + i < SIZE)
                sums[state][h][part + i] = sum[h][i];
    }
    __syncthreads();
    for (int h = warp; h < count; h += WARPS)
        weigh(tops[h], totals[h], STATES, &whole_top[h], &whole[h]);
    __syncthreads();
    for (int i = threadIdx.x; i < count * SIZE; i += 32 * WARPS) {
        int h = i / SIZE, d = i % SIZE;
        float mixed = 0;
        #pragma unroll 8
        for (int n = 0; n < STATES; n++)
            mixed += tops[h][n] * sums[n][h][d];
        if (runs == 1) {
            store(&out[((long long)token * heads + first + h) * SIZE + d],
                  seen ? mixed / whole[h] : 0);
        } else {  // a run's state is its sums, then its maximum and its total
            float *to = parts + (((long long)token * heads + first + h) * gridDim.z + blockIdx.z)
                * (SIZE + 2);
            to[d] = mixed;
            if (d == 0) {
                to[SIZE] = whole_top[h];
                to[SIZE + 1] = whole[h];
            }
        }
    }
    if (runs == 1 || !last_block(&counters[token * gridDim.y + blockIdx.y], runs))
        return;
    const float *all_runs = parts + ((long long)token * heads + first) * gridDim.z * (SIZE + 2);
    for (int h = warp; h < count; h += WARPS) {
        if (lane < runs) {
            const float *state = all_runs + (h * gridDim.z + lane) * (SIZE + 2);
            tops[h][lane] = load_fresh(&state[SIZE]);
            totals[h][lane] = load_fresh(&state[SIZE + 1]);
        }
        weigh(tops[h], totals[h], runs, &whole_top[h], &whole[h]);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < count * SIZE; i += 32 * WARPS) {
        int h = i / SIZE;
        const float *from = all_runs + h * gridDim.z * (SIZE + 2) + i % SIZE;
        float mixed = 0;
        #pragma unroll 8
        for (int n = 0; n < runs; n++)
            mixed += tops[h][n] * load_fresh(&from[n * (SIZE + 2)]);
        store(&out[((long long)token * heads + first) * SIZE + i], mixed / whole[h]);
    }
}
