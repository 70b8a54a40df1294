// attention for many queries in float32, on CUDA cores: products stay float32, and any cache is taken.
//
// Moves     a head's keys and values once for each 64 of its queries, from the L2 cache mostly.
// Threads   a block of 256 takes 64 queries of one sequence and one head, and 64 positions at a time. Thread
//           (i, j) makes 4 x 4 scores, then, out of the weights of all, 4 x 4 numbers of the result; the 16
//           threads of a row are half a warp, which finds its maximum. Queries and keys lie in shared memory
//           turned, so that four of either are one load. Weights take the place of the keys, which are used
//           up then; those of position k lie at row ^ k, in fours, so that neighbours store to different
//           banks. A sequence's last queries see most: they begin first.
// Values beyond the sequence are stored as 0: their weight is 0, but 0 times whatever is there is not.
// Source    core/ops/attention.py; Dao 2023, https://arxiv.org/abs/2307.08691.
#include "numbers.cuh"
#include "paged.cuh"
#include "teams.cuh"

#define SIDE 64  // queries of a block, and positions at a time
#define PIECES (SIZE / 8)

// Over the 16 threads of a row.
__device__ inline float row_max(float v)
{
    for (int step = 8; step > 0; step /= 2)
        v = fmaxf(v, __shfl_xor_sync(EVERY_LANE, v, step));
    return v;
}

__device__ inline float row_sum(float v)
{
    for (int step = 8; step > 0; step /= 2)
        v += __shfl_xor_sync(EVERY_LANE, v, step);
    return v;
}

extern "C" __global__ void __launch_bounds__(256, 2)
attention_tiled(const A *q, const C *cache, const float *scales, const int *table, const int *starts,
                const int *lens, A *out, int sequences, int width, int heads, int kv_heads,
                long long side, float scale)
{
    take_turn();
    __shared__ __align__(16) float queries[SIZE][SIDE], keys[SIDE][SIDE], values[SIDE][SIZE];
    batch b = {table, starts, lens, sequences, width};
    int turn = gridDim.x - 1 - blockIdx.x, s = 0;  // tiles are counted on over the sequences
    for (; s < sequences; s++) {
        int count = (starts[s + 1] - starts[s] + SIDE - 1) / SIDE;
        if (turn < count)
            break;
        turn -= count;
    }
    if (s == sequences)
        return;
    int head = blockIdx.y, kv_head = head / (heads / kv_heads), stop = starts[s + 1];
    int begin = starts[s] + turn * SIDE, row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
    int all = positions_seen(b, s, min(stop, begin + SIDE) - 1);  // by the last query, the most
    for (int i = threadIdx.x; i < SIDE * PIECES; i += 256) {
        int line = i % SIDE, at = i / SIDE * 8;
        float v[8] = {0};
        if (begin + line < stop)
            load8(q + ((long long)(begin + line) * heads + head) * SIZE + at, v);
        for (int j = 0; j < 8; j++)
            queries[at + j][line] = v[j];
    }
    float sum[4][4] = {{0}}, top[4], total[4] = {0};
    int seen[4];
    for (int t = 0; t < 4; t++) {
        top[t] = -INFINITE;
        seen[t] = positions_seen(b, s, begin + row + t);
    }
    for (int base = 0; base < all; base += SIDE) {
        __syncthreads();  // the tile before is used up
        for (int i = threadIdx.x; i < 2 * SIDE * PIECES; i += 256) {
            int value = i / (SIDE * PIECES), left = i % (SIDE * PIECES);
            int line = value ? left / PIECES : left % SIDE;
            int at = 8 * (value ? left % PIECES : left / SIDE);
            float v[8] = {0};
            if (base + line < all) {
                long long from = cache_row(b, s, base + line, kv_head, kv_heads);
                load8(cache + value * side + from * SIZE + at, v);
                if (CODES)
                    for (int j = 0; j < 8; j++)
                        v[j] *= scales[value * (side / SIZE) + from];
            }
            if (value)
                for (int j = 0; j < 8; j += 4)
                    *(uint4 *)&values[line][at + j] = packed(v + j, 0.f);
            else
                for (int j = 0; j < 8; j++)
                    keys[at + j][line] = v[j];
        }
        __syncthreads();
        float score[4][4] = {{0}};
        #pragma unroll 8
        for (int d = 0; d < SIZE; d++) {
            float a[4], k[4];
            load4(&queries[d][row], a);
            load4(&keys[d][column], k);
            for (int t = 0; t < 4; t++)
                for (int n = 0; n < 4; n++)
                    score[t][n] += a[t] * k[n];
        }
        __syncthreads();  // weights take the keys' place
        for (int t = 0; t < 4; t++) {
            float highest = top[t];
            for (int n = 0; n < 4; n++) {
                score[t][n] = base + column + n < seen[t] ? score[t][n] * scale : -INFINITE;
                highest = fmaxf(highest, score[t][n]);
            }
            highest = row_max(highest);
            float old = top[t] == -INFINITE ? 0 : expf(top[t] - highest);
            top[t] = highest;
            total[t] *= old;
            for (int n = 0; n < 4; n++) {
                score[t][n] = score[t][n] == -INFINITE ? 0 : expf(score[t][n] - highest);
                total[t] += score[t][n];
                sum[t][n] *= old;
            }
        }
        for (int n = 0; n < 4; n++) {
            float weights[4] = {score[0][n], score[1][n], score[2][n], score[3][n]};
            *(uint4 *)&keys[column + n][row ^ column % 32] = packed(weights, 0.f);
        }
        __syncthreads();
        if (column < SIZE)
            #pragma unroll 8
            for (int k = 0; k < SIDE; k++) {
                float a[4], v[4];
                load4(&keys[k][row ^ k / 4 * 4 % 32], a);
                load4(&values[k][column], v);
                for (int t = 0; t < 4; t++)
                    for (int n = 0; n < 4; n++)
                        sum[t][n] += a[t] * v[n];
            }
    }
    for (int t = 0; t < 4; t++) {
        float whole = row_sum(total[t]);
        for (int n = 0; n < 4; n++)
            if (begin + row + t < stop && column < SIZE)
                store(&out[((long long)(begin + row + t) * heads + head) * SIZE + column + n],
                      all ? sum[t][n] / whole : 0);
    }
}
