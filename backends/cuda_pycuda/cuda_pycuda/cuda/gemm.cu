// linear, quantized_linear and block_linear with many rows of x, on CUDA cores: float32 products stay float32, and
// any shape and dtypes are taken.
//
// Moves     x once for each 128 rows of weights, the weights once for each TILE_T rows of x: with 128 of
//           each 64 multiplications for each number loaded, so arithmetic is the limit; with few rows of
//           x the weights' bytes are.
// Threads   a block of 8 warps a tile of TILE_T tokens x TILE_N outputs, 128,, over its part of K (split.cuh). Along
//           K it goes 16 columns at a time: every thread loads 8 numbers of a row of x and of weights into
//           registers, then multiplies the present strips out of shared memory, then puts what has
//           arrived into the other half of it. Strips lie there turned: four tokens, or outputs, are one
//           16-byte load. A thread has squares of 4 x 4 sums, SUB_T x SUB_N of them: 8 x 8 sums take four
//           loads for 64 multiplications.
// Banks     columns 8 to 15 of a strip lie 16 numbers away from where 0 to 7 do (a ^ 16): a warp stores
//           16 rows of either at once. The lanes of a quarter warp are 2 x 4 squares, so that what
//           neighbours load is the same or side by side, and a warp's load takes two steps, not four.
// Sums      of RUN columns each, then of these: in one sum over a row of 8,192 the rounding of every
//           addition is that of the whole sum, and together they leave the op's error budget.
// Source    core/ops/linear.py; the blocked product of any textbook (Volkov and Demmel 2008).
#include "numbers.cuh"
#include "weights.cuh"

#define STRIP 16
#define RUN 256
#define WARPS_T (TILE_T < 128 ? 2 : 4)  // of 8, along the tokens
#define SUB_T (TILE_T / 16 / WARPS_T)
#define SUB_N (TILE_N / 32 * WARPS_T / 8)
#define SUMS (16 * SUB_T * SUB_N)
#include "split.cuh"

// Numbers are kept as they are stored until they go to shared memory, so that no thread waits for them
// before; codes, and rows that are not whole pieces, as floats.
#if ALIGNED
typedef A x_kept;
#else
typedef float x_kept;
#endif
#if ALIGNED && !BITS
typedef W w_kept;
#else
typedef float w_kept;
#endif

__device__ inline void fetch_x(const A *row, int k, int width, uint4 *kept)
{
#if ALIGNED
    for (int i = 0; i < sizeof(A) / 2; i++)
        kept[i] = ((const uint4 *)(row + k))[i];
#else
    float v[8];
    row8(row, k, width, v);
    kept[0] = packed(v, 0.f), kept[1] = packed(v + 4, 0.f);
#endif
}

__device__ inline void fetch_w(matrix m, long long n, int k, uint4 *kept)
{
#if ALIGNED && !BITS
    for (int i = 0; i < sizeof(W) / 2; i++)
        kept[i] = ((const uint4 *)(m.data + n * m.width + k))[i];
#else
    float v[8];
    weights8(m, n, k, v);
    kept[0] = packed(v, 0.f), kept[1] = packed(v + 4, 0.f);
#endif
}

extern "C" __global__ void __launch_bounds__(256, TILE_T < 128 ? 2 : 1)
gemm(const A *x, MATRIX, const B *bias, O *y, float *parts, int *counters, int tokens, int count,
     int width, int group, int groups, int columns)
{
    take_turn();
    __shared__ __align__(16) float xs[2][STRIP][TILE_T], ws[2][STRIP][TILE_N];
    matrix m = AS_MATRIX;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int row = warp % WARPS_T * 16 * SUB_T + (lane % 2 + lane / 8 % 2 * 2) * 4;  // of the first square
    int column = warp / WARPS_T * 32 * SUB_N + (lane % 8 / 2 + lane / 16 * 4) * 4;
    int line = threadIdx.x / 2, part = threadIdx.x % 2 * 8, there = line ^ 2 * part;  // that it loads
    long long token = blockIdx.y * TILE_T, out = blockIdx.x * TILE_N;
    bool has_x = line < TILE_T && token + line < tokens, has_w = out + line < count;
    int begin = blockIdx.z * columns, end = min(width, begin + columns);
    float sum[4 * SUB_T][4 * SUB_N] = {{0}}, run[4 * SUB_T][4 * SUB_N] = {{0}};
    for (int k = begin - STRIP, half = 1; k < end; k += STRIP, half ^= 1) {
        int next = k + STRIP + part;
        uint4 x_next[sizeof(x_kept) / 2] = {{0}}, w_next[sizeof(w_kept) / 2] = {{0}};
        if (has_x && next < end)
            fetch_x(x + (token + line) * width, next, width, x_next);
        if (has_w && next < end)
            fetch_w(m, out + line, next, w_next);
        if (k >= begin) {
            #pragma unroll
            for (int i = 0; i < STRIP; i++) {
                float a[4 * SUB_T], b[4 * SUB_N];
                #pragma unroll
                for (int t = 0; t < SUB_T; t++)
                    load4(&xs[half][i][(row + 16 * t) ^ i / 8 * 16], a + 4 * t);
                #pragma unroll
                for (int n = 0; n < SUB_N; n++)
                    load4(&ws[half][i][(column + 32 * n) ^ i / 8 * 16], b + 4 * n);
                #pragma unroll
                for (int t = 0; t < 4 * SUB_T; t++)
                    #pragma unroll
                    for (int n = 0; n < 4 * SUB_N; n++)
                        run[t][n] += a[t] * b[n];
            }
            if ((k - begin) % RUN == RUN - STRIP || k + STRIP >= end)
                #pragma unroll
                for (int t = 0; t < 4 * SUB_T; t++)
                    #pragma unroll
                    for (int n = 0; n < 4 * SUB_N; n++) {
                        sum[t][n] += run[t][n];
                        run[t][n] = 0;
                    }
        }
        float v[8];
        for (int i = 0; i < sizeof(x_kept) / 2; i++)
            unpack(x_next[i], v + 16 / sizeof(x_kept) * i, x_kept());
        if (line < TILE_T)
            for (int i = 0; i < 8; i++)
                xs[half ^ 1][part + i][there] = v[i];
        for (int i = 0; i < sizeof(w_kept) / 2; i++)
            unpack(w_next[i], v + 16 / sizeof(w_kept) * i, w_kept());
        for (int i = 0; i < 8; i++)
            ws[half ^ 1][part + i][there] = v[i];
        __syncthreads();
    }
    if (!sums_are_whole(&sum[0][0], parts, counters))
        return;
    #pragma unroll
    for (int t = 0; t < 4 * SUB_T; t++)
        #pragma unroll
        for (int n = 0; n < 4 * SUB_N; n++) {
            long long at = token + row + t / 4 * 16 + t % 4, to = out + column + n / 4 * 32 + n % 4;
            if (at < tokens && to < count)
                store(&y[at * count + to], sum[t][n] + (bias ? to_float(bias[to]) : 0));
        }
}
