// softmax of each row of x [T, D]: one block a row, three passes of which two hit the caches. A row
// of logits of a large vocabulary (128256 x 4 bytes) stays in L2.
#include "common.cuh"

extern "C" __global__ void softmax(const A* x, A* out, int width) {
    pdl();
    const A* row = x + (long long)blockIdx.x * width;
    float peak = -__int_as_float(0x7F800000);
    for (int i = threadIdx.x; i < width; i += blockDim.x) peak = fmaxf(peak, widen(row[i]));
    peak = block_max(peak);
    float total = 0.f;
    for (int i = threadIdx.x; i < width; i += blockDim.x) total += expf(widen(row[i]) - peak);
    total = block_sum(total);
    for (int i = threadIdx.x; i < width; i += blockDim.x)
        out[(long long)blockIdx.x * width + i] = narrow<A>(expf(widen(row[i]) - peak) / total);
}
