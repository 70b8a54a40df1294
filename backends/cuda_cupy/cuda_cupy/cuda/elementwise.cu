// embedding, add, swiglu and advance: one thread an element (embedding: one block a row). They must
// move each input once and each output once.
#include "common.cuh"

// out[t] = table[ids[t]], converted from W to O
extern "C" __global__ void embedding(const int* ids, const W* table, O* out, int rows, int width) {
    pdl_wait();  // first: what follows in this step may then count on the last step's being over
    pdl_launch();
    const int row = min(max(ids[blockIdx.x], 0), rows - 1);
    for (int i = threadIdx.x; i < width; i += blockDim.x)
        out[(long long)blockIdx.x * width + i] = narrow<O>(widen(table[(long long)row * width + i]));
}

extern "C" __global__ void add(const O* a, const O* b, O* out, int count) {
    pdl();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = narrow<O>(widen(a[i]) + widen(b[i]));
}

// W may be float where O is not: sums that were never rounded.
extern "C" __global__ void swiglu(const W* gate, const W* up, O* out, int count) {
    pdl();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = narrow<O>(silu(widen(gate[i])) * widen(up[i]));
}

// Every row of out becomes bias: what a product then adds to.
extern "C" __global__ void fill_bias(const W* bias, O* out, int count, int width) {
    pdl();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = narrow<O>(widen(bias[i % width]));
}

// out = sums + bias, sums in float32: rounds once.
extern "C" __global__ void add_bias(const float* sums, const W* bias, O* out, int count, int width) {
    pdl();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = narrow<O>(sums[i] + widen(bias[i % width]));
}
