// softmax: out = exp(x - max(x)) / sum(exp(x - max(x))) along a row.
//
// Moves     a row in and out. The row is read three times, for the maximum, the sum and the result;
//           the second and third time it comes from a cache.
// Threads   a block a row, thread i on elements i, i + blockDim.x, ...
// Source    core/ops/elementwise.py.
#include "numbers.cuh"
#include "teams.cuh"

extern "C" __global__ void softmax(const A *x, A *out, int width)
{
    take_turn();
    x += (long long)blockIdx.x * width;
    out += (long long)blockIdx.x * width;
    float top = -INFINITE, sum = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x)
        top = fmaxf(top, to_float(x[i]));
    top = block_max(top);
    for (int i = threadIdx.x; i < width; i += blockDim.x)
        sum += expf(to_float(x[i]) - top);
    sum = block_sum(sum);
    for (int i = threadIdx.x; i < width; i += blockDim.x)
        store(&out[i], expf(to_float(x[i]) - top) / sum);
}
