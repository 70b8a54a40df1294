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
#include "epilogue.cuh"

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

// Row n of a matrix.
__device__ inline quantized row_of(quantized m, long long n)
{
    quantized row = {m.codes + n * ROW_BYTES, m.scales + n * GROUPS, m.zeros + n * GROUPS};
    return row;
}

__device__ inline void start_lap(int lap, const quantized rows[ROWS], slot slots[ROWS])
{
    int lane = threadIdx.x % 32, k = (lap * 32 + lane) * PER;
    #pragma unroll
    for (int r = 0; r < ROWS; r++)
        if (k < K) {
            copy16(&slots[r].codes[lane], rows[r].codes + k / 8 * BITS);
            copy4(&slots[r].scales[0][lane], rows[r].scales + k / GROUP);
            if (ZEROS)
                copy4(&slots[r].scales[ZEROS][lane], rows[r].zeros + k / GROUP);
        }
    commit();
}

__device__ inline void dot_rows(source x, const quantized rows[ROWS], float sum[ROWS])
{
    __shared__ slot ring[WARPS][DEPTH][ROWS];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int r = 0; r < ROWS; r++)
        sum[r] = 0;
    let_next_start();
    for (int lap = 0; lap < DEPTH; lap++)
        start_lap(lap, rows, ring[warp][lap]);
    wait_for_previous();
    make_x(x);
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
        start_lap(lap + DEPTH, rows, ring[warp][lap % DEPTH]);
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
    int first = (blockIdx.x * WARPS + threadIdx.x / 32) * ROWS;
    quantized m0 = {w0, s0, z0}, m1 = {w1, s1, z1}, m2 = {w2, s2, z2};
    quantized rows[ROWS];
    for (int r = 0; r < ROWS; r++) {
        int n = min(first + r, n0 + n1 + n2 - 1);
        rows[r] = n < n0 ? row_of(m0, n) : n < n0 + n1 ? row_of(m1, n - n0)
            : row_of(m2, n - n0 - n1);
    }
    float sum[ROWS];
    dot_rows(x, rows, sum);
    store_rows(sum, first, bias0, bias1, bias2, y0, y1, y2, n0, n1, n2);
}

#else
extern "C" __global__ void __launch_bounds__(32 * WARPS)
add_norm_gate_up(const A *a, const A *b, const G *norm, const u8 *gate, const float *gate_scales,
                 const float *gate_zeros, const u8 *up, const float *up_scales, const float *up_zeros,
                 A *sum, A *y, int count, float eps)
{
    int n = blockIdx.x * WARPS + threadIdx.x / 32;
    source x = {a, b, norm, sum, eps};
    quantized m0 = {gate, gate_scales, gate_zeros}, m1 = {up, up_scales, up_zeros};
    quantized rows[ROWS] = {row_of(m0, min(n, count - 1)), row_of(m1, min(n, count - 1))};
    float dots[ROWS];
    dot_rows(x, rows, dots);
    store_gated(dots, n, y, count);
}
#endif
