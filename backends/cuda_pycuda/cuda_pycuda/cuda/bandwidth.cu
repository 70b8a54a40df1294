// bandwidth: reads a large array and keeps nothing: the speed that every other kernel is held against.
//
// Moves     16 bytes a piece, read once.
// Threads   neighbours on neighbouring pieces, each thread 8 pieces ahead of what it has added up.
#include "ptx.cuh"

extern "C" __global__ void bandwidth(const uint4 *data, unsigned *out, long long pieces)
{
    long long step = (long long)gridDim.x * blockDim.x;
    unsigned sum = 0;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < pieces; i += 8 * step) {
        uint4 v[8];
        for (int n = 0; n < 8; n++)
            v[n] = i + n * step < pieces ? load_once(data + i + n * step) : make_uint4(0, 0, 0, 0);
        for (int n = 0; n < 8; n++)
            sum ^= v[n].x ^ v[n].y ^ v[n].z ^ v[n].w;
    }
    if (sum == 0x9e3779b9)  // nearly never, but the compiler cannot know
        *out = sum;
}
