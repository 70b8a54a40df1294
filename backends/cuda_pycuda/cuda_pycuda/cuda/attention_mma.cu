// attention for many queries in f16 or bf16, on tensor cores.
//
// Moves     a head's keys and values once for each 64 of its queries, from the L2 cache mostly.
// Threads   a block of 4 warps takes 64 queries of one sequence and one head, a warp 16 of them. Keys
//           and values come 32 positions at a time into shared memory. A warp multiplies its queries
//           with the keys (scores [16, 32] in registers), makes weights of scores by online softmax
//           (a row is held by four lanes), and multiplies these with the values. The registers of a
//           score tile are, rounded to 16 bits, just those of the left operand of the second product
//           (ptx.cuh has the map), so nothing is exchanged between lanes.
// An i8 cache's codes are multiplied as whole numbers, which 16 bits hold exactly: a key's scale goes to
// its score, a value's to its weight.
// Values beyond the sequence are stored as 0: their weight is 0, but 0 times whatever is there is not.
// Source    core/ops/attention.py; Dao 2023, https://arxiv.org/abs/2307.08691.
#include "numbers.cuh"
#include "paged.cuh"
#include "teams.cuh"

#define QUERIES 64
#define KEYS 32
#define STEP (SIZE + 8)

// Eight numbers of the cache as 16-bit numbers; codes as the whole numbers that they are.
__device__ inline uint4 cached(const C *from, A kind)
{
#if CODES
    float v[8];
    load8(from, v);
    return packed(v, kind);
#else
    return *(const uint4 *)from;
#endif
}

// Over the four lanes that hold a row.
__device__ inline float row_max(float v)
{
    v = fmaxf(v, __shfl_xor_sync(EVERY_LANE, v, 1));
    return fmaxf(v, __shfl_xor_sync(EVERY_LANE, v, 2));
}

__device__ inline float row_sum(float v)
{
    v += __shfl_xor_sync(EVERY_LANE, v, 1);
    return v + __shfl_xor_sync(EVERY_LANE, v, 2);
}

extern "C" __global__ void __launch_bounds__(128)
attention_mma(const A *q, const C *cache, const float *scales, const int *table, const int *starts,
              const int *lens, A *out, int sequences, int width, int heads, int kv_heads,
              long long side, float scale)
{
    take_turn();
    __shared__ __align__(16) unsigned short keys[KEYS][STEP], values[KEYS][STEP];
    __shared__ float code_scales[2][KEYS];  // of the keys and of the values
    batch b = {table, starts, lens, sequences, width};
    int tile = blockIdx.x, s = 0;  // tiles are counted on over the sequences
    for (; s < sequences; s++) {
        int tiles = (starts[s + 1] - starts[s] + QUERIES - 1) / QUERIES;
        if (tile < tiles)
            break;
        tile -= tiles;
    }
    if (s == sequences)
        return;
    int head = blockIdx.y, kv_head = head / (heads / kv_heads), lane = threadIdx.x % 32;
    int g = lane / 4, c = lane % 4 * 2, stop = starts[s + 1];
    int begin = starts[s] + tile * QUERIES + threadIdx.x / 32 * 16;  // the warp's first query
    int rows[2] = {begin + g, begin + g + 8};  // the two queries whose scores this lane holds
    A kind = {0};

    unsigned query[SIZE / 16][4];
    #pragma unroll
    for (int i = 0; i < SIZE / 16; i++)
        for (int j = 0; j < 4; j++) {
            int row = rows[j % 2], at = 16 * i + c + j / 2 * 8;
            query[i][j] = row < stop
                ? *(const unsigned *)(q + ((long long)row * heads + head) * SIZE + at) : 0;
        }
    float sum[SIZE / 8][4] = {{0}}, top[2] = {-INFINITE, -INFINITE}, total[2] = {0, 0};
    // the block's last query sees the most
    int last = min(stop, starts[s] + (tile + 1) * QUERIES) - 1, all = positions_seen(b, s, last);
    int seen[2] = {positions_seen(b, s, rows[0]), positions_seen(b, s, rows[1])};

    for (int base = 0; base < all; base += KEYS) {
        for (int i = threadIdx.x; i < 2 * KEYS * SIZE / 8; i += 128) {
            int value = i / (KEYS * SIZE / 8), row = i / (SIZE / 8) % KEYS, at = i % (SIZE / 8) * 8;
            uint4 v = make_uint4(0, 0, 0, 0);
            if (base + row < all) {
                long long from = cache_row(b, s, base + row, kv_head, kv_heads);
                v = cached(cache + value * side + from * SIZE + at, kind);
                if (CODES && at == 0)
                    code_scales[value][row] = scales[value * (side / SIZE) + from];
            } else if (at == 0) {
                code_scales[value][row] = 0;
            }
            *(uint4 *)&(value ? values : keys)[row][at] = v;
        }
        __syncthreads();
        float score[KEYS / 8][4] = {{0}};
        #pragma unroll
        for (int i = 0; i < SIZE / 16; i++)
            #pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
                const unsigned short *from = &keys[8 * n + g][16 * i + c];
                mma(score[n], query[i], *(const unsigned *)from, *(const unsigned *)(from + 8), kind);
            }
        float highest[2] = {top[0], top[1]};
        #pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
            #pragma unroll
            for (int j = 0; j < 4; j++) {
                bool hidden = base + 8 * n + c + j % 2 >= seen[j / 2];
                float by = CODES ? scale * code_scales[0][8 * n + c + j % 2] : scale;
                score[n][j] = hidden ? -INFINITE : score[n][j] * by;
                highest[j / 2] = fmaxf(highest[j / 2], score[n][j]);
            }
        float old[2];
        for (int r = 0; r < 2; r++) {
            highest[r] = row_max(highest[r]);
            old[r] = top[r] == -INFINITE ? 0 : expf(top[r] - highest[r]);
            top[r] = highest[r];
            total[r] *= old[r];
        }
        #pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
            #pragma unroll
            for (int j = 0; j < 4; j++) {
                float weight = score[n][j] == -INFINITE ? 0 : expf(score[n][j] - top[j / 2]);
                total[j / 2] += weight;
                score[n][j] = CODES ? weight * code_scales[1][8 * n + c + j % 2] : weight;
            }
        #pragma unroll
        for (int n = 0; n < SIZE / 8; n++)
            for (int j = 0; j < 4; j++)
                sum[n][j] *= old[j / 2];
        #pragma unroll
        for (int i = 0; i < KEYS / 16; i++) {
            float *left = score[2 * i], *right = score[2 * i + 1];
            unsigned weights[4] = {pack(left[0], left[1], kind), pack(left[2], left[3], kind),
                                   pack(right[0], right[1], kind), pack(right[2], right[3], kind)};
            #pragma unroll
            for (int n = 0; n < SIZE / 8; n++) {
                const unsigned short *from = &values[16 * i + c][8 * n + g];
                mma(sum[n], weights, from[0] | (unsigned)from[STEP] << 16,
                    from[8 * STEP] | (unsigned)from[9 * STEP] << 16, kind);
            }
        }
        __syncthreads();
    }
    for (int r = 0; r < 2; r++)
        total[r] = row_sum(total[r]);
    #pragma unroll
    for (int n = 0; n < SIZE / 8; n++)
        for (int j = 0; j < 4; j++)
            if (rows[j / 2] < stop)
                store(&out[((long long)rows[j / 2] * heads + head) * SIZE + 8 * n + c + j % 2],
                      all ? sum[n][j] / total[j / 2] : 0);
}
