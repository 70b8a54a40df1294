// rms_norm: out = x / sqrt(mean(x^2) + eps) * weight.   add_rms_norm: sum = a + b, then of the sum.
//
// Moves     a row in, the weight in, a row out (add_rms_norm: two in, two out).
// Threads   a block a row: thread i takes elements i, i + blockDim.x, ... and keeps them in registers
//           (KEEP of them, a compile-time number) between the sum of squares and the result, so that
//           each byte is read once. A decode step has one row, hence one block: what counts is its
//           latency, so a row gets as many threads as it has elements, up to 1024.
// Source    core/ops/norm.py; Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467.
#include "numbers.cuh"
#include "teams.cuh"

// A thread's share of the weights, which no kernel writes, so that they need not wait for one.
__device__ inline void load_weights(const W *weight, float own[KEEP], int width)
{
    for (int n = 0; n < KEEP; n++) {
        int i = n * blockDim.x + threadIdx.x;
        own[n] = i < width ? to_float(weight[i]) : 0;
    }
}

// The norm of row a or, to `add`, of a + b, which goes to `sum`.
__device__ inline void norm_row(bool add, const A *a, const A *b, const W *weight, A *sum, A *out,
                                int width, float eps)
{
    let_next_start();
    long long row = (long long)blockIdx.x * width;
    float kept[KEEP], own[KEEP], squares = 0;
    load_weights(weight, own, width);
    wait_for_previous();
    for (int n = 0; n < KEEP; n++) {
        int i = n * blockDim.x + threadIdx.x;
        kept[n] = 0;
        if (i < width && add)
            store(&sum[row + i], to_float(a[row + i]) + to_float(b[row + i]));
        if (i < width)  // a sum as rounded, which is what later layers see
            kept[n] = to_float((add ? sum : a)[row + i]);
    }
    for (int n = 0; n < KEEP; n++)
        squares += kept[n] * kept[n];
    float scale = 1 / sqrtf(block_sum(squares) / width + eps);
    for (int n = 0; n < KEEP; n++) {
        int i = n * blockDim.x + threadIdx.x;
        if (i < width)
            store(&out[row + i], kept[n] * scale * own[n]);
    }
}

extern "C" __global__ void rms_norm(const A *x, const W *weight, A *out, int width, float eps)
{
    norm_row(false, x, 0, weight, 0, out, width, eps);
}

extern "C" __global__ void add_rms_norm(const A *a, const A *b, const W *weight, A *sum, A *out,
                                        int width, float eps)
{
    norm_row(true, a, b, weight, sum, out, width, eps);
}
