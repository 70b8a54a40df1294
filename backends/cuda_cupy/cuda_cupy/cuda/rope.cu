// rope of x [T, H, d]: one block a token, one thread a pair of a head. Moves x once in and once out;
// a pair's sine and cosine are shared by as many heads as the block's threads cover per pair.
#include "rope.cuh"

extern "C" __global__ void rope(const A* x, const int* positions, const float* frequency, A* out,
                                int heads, int size, int interleaved) {
    pdl();
    const int half = size / 2, position = positions[blockIdx.x];
    const long long token = (long long)blockIdx.x * heads * size;
    for (int i = threadIdx.x; i < heads * half; i += blockDim.x) {
        const int head = i / half, pair = i % half;
        const long long at = token + head * size;
        rotate(x + at, out + at, pair_of(pair, size, interleaved), rotation(position, frequency[pair]));
    }
}
