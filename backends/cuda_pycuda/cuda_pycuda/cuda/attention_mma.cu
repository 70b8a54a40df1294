// attention for many queries in f16 or bf16, on tensor cores.
//
// Moves     a head's keys and values once for each 128 of its queries, from the L2 cache mostly.
// Threads   a block takes 128 queries of one sequence and one head, a warp 16 MT of them: 32 with heads up to
//           64, as many as registers hold. Copies of the next keys and values are on their way while the
//           warps take the present ones. A warp multiplies its queries with the keys (scores [16 MT, 32] in
//           registers), makes weights of scores by online softmax (a row is held by four lanes), and
//           multiplies these with the values. The registers of a score tile are, rounded to 16 bits, just
//           those of the left operand of the second product (ptx.cuh has the map), so nothing is exchanged
//           between lanes. Rows lie an odd number of 16 bytes apart: the eight that a load takes at once are
//           in different banks. A sequence's last queries see most: they begin first.
// An i8 cache's codes are multiplied as whole numbers, which 16 bits hold exactly: a key's scale goes to
// its score, a value's to its weight.
// Values beyond the sequence are stored as 0: their weight is 0, but 0 times whatever is there is not.
// Source    core/ops/attention.py; Dao 2023, https://arxiv.org/abs/2307.08691.
#include "numbers.cuh"
#include "paged.cuh"
#include "teams.cuh"

#define QUERIES 128
#if SIZE <= 64
#define MT 2  // mma tiles of a warp, along the queries
#define THREADS 128
#define BLOCKS 2  // a multiprocessor
#else
#define MT 1
#define THREADS 256
#define BLOCKS 1
#endif
#define KEYS 32
#define STEP (SIZE + 8)
#define LOG2_E 1.4426950408889634f

typedef struct {
    __align__(16) unsigned short rows[2][KEYS][STEP];  // of the keys and of the values
    float scales[2][KEYS];
} tile;

// Brings the positions from `base` on; zeros from `all` on, which is above 0.
__device__ inline void bring(tile *to, const C *cache, const float *scales, batch b, int s, int base, int all,
                             int kv_head, int kv_heads, long long side)
{
    for (int i = threadIdx.x; i < 2 * KEYS * SIZE / 8; i += THREADS) {
        int value = i / (KEYS * SIZE / 8), row = i / (SIZE / 8) % KEYS, at = i % (SIZE / 8) * 8;
        bool there = base + row < all;
        long long from = cache_row(b, s, min(base + row, all - 1), kv_head, kv_heads);
#if CODES
        float v[8] = {0};
        if (there)
            load8(cache + value * side + from * SIZE + at, v);
        *(uint4 *)&to->rows[value][row][at] = packed(v, A());
        if (at == 0)
            to->scales[value][row] = there ? scales[value * (side / SIZE) + from] : 0;
#else
        copy16_if(there, &to->rows[value][row][at], cache + value * side + from * SIZE + at);
#endif
    }
    commit();
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

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
attention_mma(const A *q, const C *cache, const float *scales, const int *table, const int *starts,
              const int *lens, A *out, int sequences, int width, int heads, int kv_heads,
              long long side, float scale)
{
    take_turn();
    __shared__ tile tiles[2];
    batch b = {table, starts, lens, sequences, width};
    int turn = gridDim.x - 1 - blockIdx.x, s = 0;  // tiles are counted on over the sequences
    for (; s < sequences; s++) {
        int count = (starts[s + 1] - starts[s] + QUERIES - 1) / QUERIES;
        if (turn < count)
            break;
        turn -= count;
    }
    if (s == sequences)
        return;
    int head = blockIdx.y, kv_head = head / (heads / kv_heads), lane = threadIdx.x % 32;
    int g = lane / 4, c = lane % 4 * 2, stop = starts[s + 1];
    int begin = starts[s] + turn * QUERIES + threadIdx.x / 32 * 16 * MT;  // the warp's first query
    A kind = {0};

    unsigned query[MT][SIZE / 16][4];
    int seen[MT][2];  // by the queries whose scores this lane holds
    #pragma unroll
    for (int m = 0; m < MT; m++)
        #pragma unroll
        for (int j = 0; j < 4; j++) {
            int row = begin + 16 * m + g + j % 2 * 8;
            if (j < 2)
                seen[m][j] = positions_seen(b, s, row);
            #pragma unroll
            for (int i = 0; i < SIZE / 16; i++)
                query[m][i][j] = row >= stop ? 0 : *(const unsigned *)(
                    q + ((long long)row * heads + head) * SIZE + 16 * i + c + j / 2 * 8);
        }
    float by = scale * LOG2_E;  // scores are powers of two
    float sum[MT][SIZE / 8][4] = {{{0}}}, top[MT][2], total[MT][2] = {{0}};
    for (int m = 0; m < MT; m++)
        top[m][0] = top[m][1] = -INFINITE;
    // the last query sees the most, of the block's and of the warp's
    int all = positions_seen(b, s, min(stop, starts[s] + (turn + 1) * QUERIES) - 1);
    int most = begin < stop ? positions_seen(b, s, min(stop, begin + 16 * MT) - 1) : 0;
    int least = positions_seen(b, s, begin);

    if (all)
        bring(&tiles[0], cache, scales, b, s, 0, all, kv_head, kv_heads, side);
    for (int base = 0, half = 0; base < all; base += KEYS, half ^= 1) {
        const tile *here = &tiles[half];
        WAIT_FOR_ALL_BUT(0);
        __syncthreads();  // this tile is there, and the one before is used up
        if (base + KEYS < all)
            bring(&tiles[half ^ 1], cache, scales, b, s, base + KEYS, all, kv_head, kv_heads, side);
        if (base >= most)
            continue;
        float score[MT][KEYS / 8][4] = {{{0}}};
        #pragma unroll
        for (int i = 0; i < SIZE / 16; i++)
            #pragma unroll
            for (int n = 0; n < KEYS / 8; n += 2) {
                unsigned two[4];  // of keys n and n + 1, eight each
                load_tiles(two, &here->rows[0][8 * n + lane % 8 + lane / 16 * 8]
                                              [16 * i + lane / 8 % 2 * 8]);
                #pragma unroll
                for (int m = 0; m < MT; m++) {
                    mma(score[m][n], query[m][i], two[0], two[1], kind);
                    mma(score[m][n + 1], query[m][i], two[2], two[3], kind);
                }
            }
        #pragma unroll
        for (int m = 0; m < MT; m++) {
            float highest[2] = {-INFINITE, -INFINITE}, from[2];
            #pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
                #pragma unroll
                for (int j = 0; j < 4; j++) {
                    int key = 8 * n + c + j % 2;
                    if (CODES)
                        score[m][n][j] *= here->scales[0][key];
                    if (base + KEYS > least && base + key >= seen[m][j / 2])
                        score[m][n][j] = -INFINITE;
                    highest[j / 2] = fmaxf(highest[j / 2], score[m][n][j]);
                }
            #pragma unroll
            for (int r = 0; r < 2; r++) {
                float before = top[m][r];
                top[m][r] = fmaxf(before, row_max(highest[r]) * by);
                from[r] = top[m][r] == -INFINITE ? 0 : top[m][r];
                float old = power_of_two(before - from[r]);
                total[m][r] *= old;
                #pragma unroll
                for (int n = 0; n < SIZE / 8; n++)
                    sum[m][n][2 * r] *= old, sum[m][n][2 * r + 1] *= old;
            }
            #pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
                #pragma unroll
                for (int j = 0; j < 4; j++) {
                    float v = power_of_two(score[m][n][j] * by - from[j / 2]);
                    total[m][j / 2] += v;
                    score[m][n][j] = CODES ? v * here->scales[1][8 * n + c + j % 2] : v;
                }
        }
        #pragma unroll
        for (int i = 0; i < KEYS / 16; i++) {
            unsigned weights[MT][4];
            #pragma unroll
            for (int m = 0; m < MT; m++)
                #pragma unroll
                for (int j = 0; j < 4; j++) {
                    float *pair = &score[m][2 * i + j / 2][j % 2 * 2];
                    weights[m][j] = pack(pair[0], pair[1], kind);
                }
            #pragma unroll
            for (int n = 0; n < SIZE / 8; n += 2) {
                unsigned two[4];  // of columns n and n + 1 of the values, eight each
                load_turned(two, &here->rows[1][16 * i + lane % 16][8 * n + lane / 16 * 8]);
                #pragma unroll
                for (int m = 0; m < MT; m++) {
                    mma(sum[m][n], weights[m], two[0], two[1], kind);
                    mma(sum[m][n + 1], weights[m], two[2], two[3], kind);
                }
            }
        }
    }
    #pragma unroll
    for (int m = 0; m < MT; m++)
        #pragma unroll
        for (int r = 0; r < 2; r++) {
            int row = begin + 16 * m + 8 * r + g;
            float over = all ? 1 / row_sum(total[m][r]) : 0;
            #pragma unroll
            for (int n = 0; n < SIZE / 8; n++)
                if (row < stop)
                    *(unsigned *)&out[((long long)row * heads + head) * SIZE + 8 * n + c] =
                        pack(sum[m][n][2 * r] * over, sum[m][n][2 * r + 1] * over, kind);
        }
}
