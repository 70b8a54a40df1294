// quantized_linear with one row of x: y[n] = sum over groups of scale * (dot(codes, x) - zero * sum(x))
// + bias, for up to three matrices at once; and add_norm_gate_up, as in gemv.cu.
//
// Moves     every code once, K bytes a row (K / 2 for 4 bits), and a scale (and a zero) a group.
// Threads   as in gemv.cu: a warp takes ROWS rows, a lane 16 bytes of each at a time, which are PER =
//           16 or 32 codes of one group. The codes of a lane meet PER numbers of x, four to eight
//           times as many bytes as the codes have (x.cuh): ROWS rows share them.
// A lane scales its own PER products before it adds them, so no lane waits for another's group.
// Source    core/ops/quantized.py.
#include "numbers.cuh"
#include "silu.cuh"
#include "teams.cuh"

#define PER (128 / BITS)
#define LAPS ((K + 32 * PER - 1) / (32 * PER))
#define GROUPS ((K + GROUP - 1) / GROUP)
#define ROW_BYTES (K / 8 * BITS)
#define SHIFTED (ZEROS || BITS == 4)  // whether a code's zero is another number than 0
#include "x.cuh"

// 16 bytes of codes as floats: int8 as they are, 4-bit codes low nibble first.
__device__ inline void decode(uint4 v, float *out)
{
    unsigned words[4] = {v.x, v.y, v.z, v.w};
    #pragma unroll
    for (int i = 0; i < PER; i++)
        out[i] = BITS == 8 ? (float)(i8)(words[i / 4] >> 8 * (i % 4))
                           : (float)(words[i / 8] >> 4 * (i % 8) & 15);
}

typedef struct {
    uint4 codes[32];
    float scales[1 + ZEROS][32];  // then the zeros, if there are any
} slot;  // what a warp needs of a row for one lap

__device__ inline void start_lap(int lap, const u8 *const codes[ROWS], const float *const scales[ROWS],
                                 const float *const zeros[ROWS], slot slots[ROWS])
{
    int lane = threadIdx.x % 32, k = (lap * 32 + lane) * PER;
    #pragma unroll
    for (int r = 0; r < ROWS; r++)
        if (k < K) {
            copy16(&slots[r].codes[lane], codes[r] + k / 8 * BITS);
            copy4(&slots[r].scales[0][lane], scales[r] + k / GROUP);
            if (ZEROS)
                copy4(&slots[r].scales[ZEROS][lane], zeros[r] + k / GROUP);
        }
    commit();
}

__device__ void dot_rows(source x, const u8 *const codes[ROWS], const float *const scales[ROWS],
                         const float *const zeros[ROWS], float sum[ROWS])
{
    __shared__ slot ring[WARPS][DEPTH][ROWS];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int r = 0; r < ROWS; r++)
        sum[r] = 0;
    start_x(x);
    for (int lap = 0; lap < DEPTH; lap++)
        start_lap(lap, codes, scales, zeros, ring[warp][lap]);
    WAIT_FOR_ALL_BUT(DEPTH - 1);
    finish_x(x);
    #pragma unroll
    for (int lap = 0; lap < LAPS; lap++) {
        int k = (lap * 32 + lane) * PER;
        WAIT_FOR_ALL_BUT(DEPTH - 1);
        if (k < K) {
            float numbers[PER], total = 0;
            load_x(x, lap, numbers);
            for (int j = 0; j < (SHIFTED ? PER : 0); j++)
                total += numbers[j];
            #pragma unroll
            for (int r = 0; r < ROWS; r++) {
                const slot *s = &ring[warp][lap % DEPTH][r];
                float weights[PER], dot = 0;
                decode(s->codes[lane], weights);
                for (int j = 0; j < PER; j++)
                    dot += weights[j] * numbers[j];
                if (SHIFTED)
                    dot -= (ZEROS ? s->scales[ZEROS][lane] : 8) * total;
                sum[r] += s->scales[0][lane] * dot;
            }
        }
        start_lap(lap + DEPTH, codes, scales, zeros, ring[warp][lap % DEPTH]);
    }
    for (int r = 0; r < ROWS; r++)
        sum[r] = warp_sum(sum[r]);
}

#if !NORM
extern "C" __global__ void __launch_bounds__(32 * WARPS)
quantized_gemv(const A *x, const u8 *w0, const u8 *w1, const u8 *w2, const float *s0,
               const float *s1, const float *s2, const float *z0, const float *z1, const float *z2,
               const B *bias0, const B *bias1, const B *bias2, O *y0, O *y1, O *y2, int n0, int n1,
               int n2)
{
    int first = (blockIdx.x * WARPS + threadIdx.x / 32) * ROWS, lane = threadIdx.x % 32;
    const u8 *codes[ROWS];
    const float *scales[ROWS], *zeros[ROWS];
    for (int r = 0; r < ROWS; r++) {
        int n = min(first + r, n0 + n1 + n2 - 1), m = n < n0 ? 0 : n < n0 + n1 ? 1 : 2;
        long long local = n - (m == 0 ? 0 : m == 1 ? n0 : n0 + n1);
        codes[r] = (m == 0 ? w0 : m == 1 ? w1 : w2) + local * ROW_BYTES;
        scales[r] = (m == 0 ? s0 : m == 1 ? s1 : s2) + local * GROUPS;
        zeros[r] = ZEROS ? (m == 0 ? z0 : m == 1 ? z1 : z2) + local * GROUPS : 0;
    }
    float sum[ROWS];
    dot_rows(x, codes, scales, zeros, sum);
    #pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int n = first + r;
        if (lane != r || n >= n0 + n1 + n2)
            continue;
        const B *bias = n < n0 ? bias0 : n < n0 + n1 ? bias1 : bias2;
        O *y = n < n0 ? y0 : n < n0 + n1 ? y1 : y2;
        n -= n < n0 ? 0 : n < n0 + n1 ? n0 : n0 + n1;
        store(&y[n], sum[r] + (bias ? to_float(bias[n]) : 0));
    }
}

#else
extern "C" __global__ void __launch_bounds__(32 * WARPS)
add_norm_gate_up(const A *a, const A *b, const G *norm, const u8 *gate, const float *gate_scales,
                 const float *gate_zeros, const u8 *up, const float *up_scales, const float *up_zeros,
                 A *sum, A *y, int count, float eps)
{
    int n = blockIdx.x * WARPS + threadIdx.x / 32;
    long long row = min(n, count - 1);
    const u8 *codes[ROWS] = {gate + row * ROW_BYTES, up + row * ROW_BYTES};
    const float *scales[ROWS] = {gate_scales + row * GROUPS, up_scales + row * GROUPS};
    const float *zeros[ROWS] = {gate_zeros + row * GROUPS, up_zeros + row * GROUPS};
    source x = {a, b, norm, sum, eps};
    float dots[ROWS];
    dot_rows(x, codes, scales, zeros, dots);
    if (threadIdx.x % 32 == 0 && n < count)
        store(&y[n], silu(dots[0]) * dots[1]);
}
#endif
