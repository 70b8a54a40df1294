// add: out = a + b.   swiglu: out = a / (1 + exp(-a)) * b, with a the gate and b the up projection.
//
// Moves     two arrays in, one out: 3 * sizeof(A) bytes an element, no matter what is computed.
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

extern "C" __global__ void swiglu(const A *gate, const A *up, A *out, int count)
{
    take_turn();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        store(&out[i], silu(to_float(gate[i])) * to_float(up[i]));
}
