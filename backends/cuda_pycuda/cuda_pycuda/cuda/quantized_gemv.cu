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

// Byte i of a word, less `zero`, as a float: with the byte as its lowest bits, the float 2^23 is
// 2^23 + the byte. (A conversion would do, but a multiprocessor has a quarter of the units for it.)
__device__ inline float byte_of(unsigned word, int i, float zero)
{
    return __uint_as_float(__byte_perm(word, 0x4b000000, 0x7440 + i)) - (8388608 + zero);
}

// 16 bytes of codes as floats: int8 as they are, 4-bit codes low nibble first.
__device__ inline void decode(uint4 v, float *out)
{
    unsigned words[4] = {v.x, v.y, v.z, v.w};
    #pragma unroll
    for (int i = 0; i < 16; i++) {
        unsigned word = words[i / 4];
        if (BITS == 8) {
            out[i] = byte_of(word ^ 0x80808080, i % 4, 128);  // moved up, out of the sign
        } else {
            out[2 * i] = byte_of(word & 0x0f0f0f0f, i % 4, 0);
            out[2 * i + 1] = byte_of(word >> 4 & 0x0f0f0f0f, i % 4, 0);
        }
    }
}

typedef struct {
    uint4 codes[32];
    float scales[1 + ZEROS][32];  // then the zeros, if there are any
} slot;  // what a warp needs of a row for one lap

typedef struct { const u8 *codes; const float *scales, *zeros; } quantized;
typedef struct { quantized row[ROWS]; } row_set;

// Row n of a matrix.
__device__ inline quantized row_of(quantized m, long long n)
{
    quantized row = {m.codes + n * ROW_BYTES, m.scales + n * GROUPS, m.zeros + n * GROUPS};
    return row;
}

// Start the copies of this lane's pieces of one lap, if there are `more`.
__device__ inline void start_lap(bool more, int lap, const row_set *rows, slot slots[ROWS])
{
    int lane = threadIdx.x % 32, k = (lap * 32 + lane) * PER;
    #pragma unroll
    for (int r = 0; r < ROWS; r++)
        if (more && k < K) {
            copy16(&slots[r].codes[lane], rows->row[r].codes + k / 8 * BITS);
            copy4(&slots[r].scales[0][lane], rows->row[r].scales + k / GROUP);
            if (ZEROS)
                copy4(&slots[r].scales[ZEROS][lane], rows->row[r].zeros + k / GROUP);
        }
    commit();
}

__shared__ slot ring[WARPS][DEPTH][ROWS];

// As in gemv.cu.
__device__ inline void start_rows(source x, const row_set *rows)
{
    start_x(x);
    for (int lap = 0; lap < DEPTH; lap++)
        start_lap(true, lap, rows, ring[threadIdx.x / 32][lap]);
    WAIT_FOR_ALL_BUT(DEPTH - 1);
    finish_x(x);
}

__device__ inline void dot_rows(source x, const row_set *rows, const row_set *next,
                                bool more, float sum[ROWS])
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int r = 0; r < ROWS; r++)
        sum[r] = 0;
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
        if (lap + DEPTH < LAPS)
            start_lap(true, lap + DEPTH, rows, ring[warp][lap % DEPTH]);
        else
            start_lap(more, lap + DEPTH - LAPS, next, ring[warp][lap % DEPTH]);
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
    quantized m0 = {w0, s0, z0}, m1 = {w1, s1, z1}, m2 = {w2, s2, z2};
    row_set rows;
    for (int r = 0; r < ROWS; r++) {
        int n = min(first + r, n0 + n1 + n2 - 1);
        rows.row[r] = n < n0 ? row_of(m0, n) : n < n0 + n1 ? row_of(m1, n - n0)
            : row_of(m2, n - n0 - n1);
    }
    float sum[ROWS];
    start_rows(x, &rows);
    dot_rows(x, &rows, &rows, false, sum);
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
__device__ inline row_set pair(quantized gate, quantized up, long long n)
{
    row_set rows = {{row_of(gate, n), row_of(up, n)}};
    return rows;
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
add_norm_gate_up(const A *a, const A *b, const G *norm, const u8 *gate, const float *gate_scales,
                 const float *gate_zeros, const u8 *up, const float *up_scales, const float *up_zeros,
                 A *sum, A *y, int count, float eps)
{
    int first = (blockIdx.x * WARPS + threadIdx.x / 32) * STEPS;
    source x = {a, b, norm, sum, eps};
    quantized m0 = {gate, gate_scales, gate_zeros}, m1 = {up, up_scales, up_zeros};
    row_set rows, next = pair(m0, m1, min(first, count - 1));
    start_rows(x, &next);
    for (int step = 0; step < STEPS; step++) {
        rows = next;
        next = pair(m0, m1, min(first + step + 1, count - 1));
        float dots[ROWS];
        dot_rows(x, &rows, &next, step + 1 < STEPS, dots);
        if (threadIdx.x % 32 == 0 && first + step < count)
            store(&y[first + step], silu(dots[0]) * dots[1]);
    }
}
#endif
