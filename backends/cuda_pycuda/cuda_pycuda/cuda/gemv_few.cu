// linear, quantized_linear and block_linear with a few rows of x (2 to 16), and any row length and dtypes.
//
// Moves     every weight once, whatever the number of tokens: that is the point of it. x is small and
//           comes from the caches, TOKENS rows for each row of weights.
// Threads   a warp a row of weights, eight weights a lane at a time, multiplied with the same eight
//           columns of each row of x; TOKENS sums a lane, then shuffles. Lane t writes token t.
// Source    core/ops/linear.py, core/ops/quantized.py.
#include "numbers.cuh"
#include "teams.cuh"
#include "weights.cuh"

extern "C" __global__ void gemv_few(const A *x, MATRIX, const B *bias, O *y, int tokens,
                                    int count, int width, int group, int groups)
{
    take_turn();
    int n = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (n >= count)
        return;
    matrix m = AS_MATRIX;
    float sum[TOKENS] = {0};
    #pragma unroll 2
    for (int k = 8 * lane; k < width; k += 256) {
        float weights[8], numbers[8];
        weights8(m, n, k, weights);
        #pragma unroll
        for (int t = 0; t < TOKENS; t++) {
            if (t >= tokens)
                continue;
            row8(x + (long long)t * width, k, width, numbers);
            for (int j = 0; j < 8; j++)
                sum[t] += weights[j] * numbers[j];
        }
    }
    #pragma unroll
    for (int t = 0; t < TOKENS; t++) {
        float total = warp_sum(sum[t]);
        if (lane == t && t < tokens)
            store(&y[(long long)t * count + n], total + (bias ? to_float(bias[n]) : 0));
    }
}
