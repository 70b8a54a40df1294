// rope: each pair of numbers of a head is rotated by an angle that grows with the token's position.
//
// Moves     x in and out, and an inverse frequency for each pair of a head.
// Threads   one a pair: thread i of a token takes pair i % (d/2) of head i / (d/2). Half-split pairs
//           (Hugging Face) lie d/2 apart, so a warp reads two runs of 32; interleaved ones (llama2.c)
//           lie side by side.
// Source    core/ops/rope.py; Su et al. 2021, https://arxiv.org/abs/2104.09864.
#include "numbers.cuh"
#include "rotate.cuh"

extern "C" __global__ void rope(const A *x, const int *positions, const float *inv_freq, A *out,
                                int heads, int size, int interleaved)
{
    take_turn();
    int i = blockIdx.y * blockDim.x + threadIdx.x, half = size / 2;
    if (i >= heads * half)
        return;
    int first, second;
    pair_at(i % half, size, interleaved, &first, &second);
    long long head = ((long long)blockIdx.x * heads + i / half) * size;
    float a = to_float(x[head + first]), b = to_float(x[head + second]);
    rotate(&a, &b, rotation_of(positions[blockIdx.x], inv_freq[i % half]));
    store(&out[head + first], a);
    store(&out[head + second], b);
}
