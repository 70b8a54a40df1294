// add: out = a + b.   swiglu: out = a / (1 + exp(-a)) * b, with a the gate and b the up projection.
//
// Moves     two arrays in, one out, no matter what is computed. swiglu takes S, float where gate and up are
//           sums that were never rounded.
// Threads   one an element, neighbours on neighbours.
// Source    core/ops/elementwise.py; Shazeer 2020, https://arxiv.org/abs/2002.05202.
#include "numbers.cuh"
#include "silu.cuh"

extern "C" __global__ void add(const A *a, const A *b, A *out, int count)
{
    take_turn();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        store(&out[i], to_float(a[i]) + to_float(b[i]));
}

extern "C" __global__ void swiglu(const S *gate, const S *up, A *out, int count)
{
    take_turn();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        store(&out[i], silu(to_float(gate[i])) * to_float(up[i]));
}
