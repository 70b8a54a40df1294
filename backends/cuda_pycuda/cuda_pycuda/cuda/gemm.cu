// linear, quantized_linear and block_linear with many rows of x, on CUDA cores: float32 products stay float32, and
// any shape and dtypes are taken.
//
// Moves     x once for each 64 rows of weights, the weights once for each 64 rows of x: with tiles of
//           64 x 64, 32 multiplications for each number loaded, so arithmetic is the limit.
// Threads   a block a tile of 64 tokens x 64 outputs. It walks along K 16 columns at a time: both
//           strips go to shared memory as float, turned, so that thread (i, j) finds its four tokens
//           and its four outputs side by side and makes 16 products of each column.
// Sums      of RUN columns each, then of these: in one sum over a row of 8,192 the rounding of every
//           addition is that of the whole sum, and together they leave the op's error budget.
// Source    core/ops/linear.py; the blocked product of any textbook (Volkov and Demmel 2008).
#include "numbers.cuh"
#include "weights.cuh"

#define TILE 64
#define STRIP 16
#define RUN 256

extern "C" __global__ void __launch_bounds__(256)
gemm(const A *x, MATRIX, const B *bias, O *y, int tokens, int count, int width, int group, int groups)
{
    take_turn();
    __shared__ __align__(16) float xs[STRIP][TILE + 4], ws[STRIP][TILE + 4];
    matrix m = AS_MATRIX;
    int first_n = blockIdx.x * TILE, first_t = blockIdx.y * TILE;
    int column = threadIdx.x % 16 * 4, row = threadIdx.x / 16 * 4;  // of this thread's products
    int line = threadIdx.x % 128 / 2, part = threadIdx.x % 2 * 8;   // of what it loads
    float sum[4][4] = {{0}}, run[4][4] = {{0}};
    for (int k = 0; k < width; k += STRIP) {
        float loaded[8] = {0};
        if (threadIdx.x < 128) {
            if (first_t + line < tokens && k + part < width)
                row8(x + (long long)(first_t + line) * width, k + part, width, loaded);
        } else if (first_n + line < count && k + part < width) {
            weights8(m, first_n + line, k + part, loaded);
        }
        __syncthreads();  // the strips before are used up
        for (int i = 0; i < 8; i++)
            (threadIdx.x < 128 ? xs : ws)[part + i][line] = loaded[i];
        __syncthreads();
        #pragma unroll
        for (int i = 0; i < STRIP; i++) {
            float a[4], b[4];
            load4(&xs[i][row], a);
            load4(&ws[i][column], b);
            for (int t = 0; t < 4; t++)
                for (int n = 0; n < 4; n++)
                    run[t][n] += a[t] * b[n];
        }
        if (k % RUN == RUN - STRIP || k + STRIP >= width)
            for (int t = 0; t < 4; t++)
                for (int n = 0; n < 4; n++) {
                    sum[t][n] += run[t][n];
                    run[t][n] = 0;
                }
    }
    for (int t = 0; t < 4; t++)
        for (int n = 0; n < 4; n++) {
            int token = first_t + row + t, out = first_n + column + n;
            if (token < tokens && out < count)
                store(&y[(long long)token * count + out],
                      sum[t][n] + (bias ? to_float(bias[out]) : 0));
        }
}
