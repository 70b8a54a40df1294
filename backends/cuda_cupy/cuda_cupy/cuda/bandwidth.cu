// Reads an array once: what the memory gives to a kernel that does nothing else. Each thread keeps 8
// loads of 16 bytes in flight; the result only keeps the compiler from dropping them.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(512)
read_all(const uint4* data, int* out, long long count) {
    pdl();
    const long long step = (long long)gridDim.x * blockDim.x;
    u32 mixed = 0;
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < count; i += 8 * step) {
        uint4 v[8];
#pragma unroll
        for (int j = 0; j < 8; j++)
            v[j] = i + j * step < count ? load_once(data + i + j * step) : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int j = 0; j < 8; j++) mixed ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
    }
    if (mixed == 0x5EED) *out = 1;
}
