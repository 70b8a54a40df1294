// block_linear with one row of x: y[n] = sum over groups of scale * dot(codes, x) - minimum * sum(x), + bias.
//
// Moves     every code once, K / 8 * BITS bytes a row, a step a block and a scale (and a minimum) a group.
// Threads   as in gemv.cu: a warp takes ROWS rows, a lane 32 codes of each at a time, of one group or two.
//           Codes pass through shared memory, DEPTH laps of them on their way. The words that hold a
//           lane's scales travel with them; steps are few and come from the L1 cache.
// Source    core/ops/quantized/block_linear.py.
#include "numbers.cuh"
#include "teams.cuh"
#include "blocks.cuh"

#define PER 32
#define LAPS ((K + 32 * PER - 1) / (32 * PER))
#define PARTS (GROUP < PER ? PER / GROUP : 1)
#include "x.cuh"
#include "silu.cuh"
#include "epilogue.cuh"

typedef struct {
    uint4 codes[32];
    unsigned upper[UPPER ? UPPER : 1][32];
    unsigned scales[SCALES ? 1 + ZEROS : 1][32];  // the aligned words of scales, then of minimums
} slot;  // what a warp needs of a row for one lap

__device__ inline const void *word_of(const i8 *bytes, long long i) { return bytes + (i & ~3ll); }

__device__ inline void start_lap(int lap, blocks m, const long long rows[ROWS], slot slots[ROWS])
{
    int lane = threadIdx.x % 32, k = (lap * 32 + lane) * PER;
    #pragma unroll
    for (int r = 0; r < ROWS; r++)
        if (k < K) {
            long long at = rows[r] + k;
            copy16(&slots[r].codes[lane], m.codes + at / 2);
            for (int i = 0; i < UPPER; i++)
                copy4(&slots[r].upper[i][lane], m.high + at / 8 * UPPER + 4 * i);
            if (SCALES) {
                copy4(&slots[r].scales[0][lane], word_of(m.scales, at / GROUP));
                if (ZEROS)
                    copy4(&slots[r].scales[ZEROS][lane], word_of(m.minimums, at / GROUP));
            }
        }
    commit();
}

// The number of group i in the word that holds it.
__device__ inline float byte_at(unsigned word, long long i) { return (float)(i8)(word >> 8 * (i & 3)); }

__device__ inline void dot_rows(const A *x, blocks m, const long long rows[ROWS], float sum[ROWS])
{
    __shared__ slot ring[WARPS][DEPTH][ROWS];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int r = 0; r < ROWS; r++)
        sum[r] = 0;
    let_next_start();
    for (int lap = 0; lap < DEPTH; lap++)
        start_lap(lap, m, rows, ring[warp][lap]);
    wait_for_previous();
    make_x(x);
    #pragma unroll
    for (int lap = 0; lap < LAPS; lap++) {
        int k = (lap * 32 + lane) * PER;
        WAIT_FOR_ALL_BUT(DEPTH - 1);
        if (k < K) {
            float numbers[PER], total[PARTS] = {0};
            load_x(x, lap, numbers);
            for (int j = 0; j < (ZEROS ? PER : 0); j++)
                total[j * PARTS / PER] += numbers[j];
            #pragma unroll
            for (int r = 0; r < ROWS; r++) {
                const slot *s = &ring[warp][lap % DEPTH][r];
                uint4 v = s->codes[lane];
                unsigned words[4] = {v.x, v.y, v.z, v.w};
                long long at = rows[r] + k;
                float step = to_float(m.steps[at / BLOCK]);
                float least = ZEROS ? to_float(m.min_steps[at / BLOCK]) : 0;
                #pragma unroll
                for (int p = 0; p < PARTS; p++) {
                    float dot = 0;
                    #pragma unroll
                    for (int q = p * 4 / PARTS; q < (p + 1) * 4 / PARTS; q++) {
                        float weights[8];
                        unsigned upper = UPPER ? s->upper[q * UPPER / 4][lane] >> 8 * UPPER * q % 32 : 0;
                        codes8(words[q], upper, weights);
                        for (int j = 0; j < 8; j++)
                            dot += weights[j] * numbers[8 * q + j];
                    }
                    long long group = at / GROUP + p;
                    sum[r] += step * (SCALES ? byte_at(s->scales[0][lane], group) : 1) * dot;
                    if (ZEROS)
                        sum[r] -= least * (SCALES ? byte_at(s->scales[ZEROS][lane], group) : 1)
                            * total[p];
                }
            }
        }
        start_lap(lap + DEPTH, m, rows, ring[warp][lap % DEPTH]);
    }
    for (int r = 0; r < ROWS; r++)
        sum[r] = warp_sum(sum[r]);
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
block_gemv(const A *x, const u8 *codes, const u8 *high, const f16 *steps, const i8 *scales,
           const f16 *min_steps, const i8 *minimums, const B *bias, O *y, int count)
{
    int first = (blockIdx.x * WARPS + threadIdx.x / 32) * ROWS;
    blocks m = {codes, high, steps, scales, min_steps, minimums};
    long long rows[ROWS];
    for (int r = 0; r < ROWS; r++)
        rows[r] = (long long)min(first + r, count - 1) * K;
    float sum[ROWS];
    dot_rows(x, m, rows, sum);
    store_rows(sum, first, bias, bias, bias, y, y, y, count, 0, 0);
}
