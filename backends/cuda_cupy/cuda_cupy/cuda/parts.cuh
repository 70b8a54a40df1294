// x for tensor cores: numbers of 16 bits as they are, a float32 as the sum of three bf16. That is exact: each
// takes the leading 8 bits of the mantissa that are left, of 24.
#pragma once
#include "mma.cuh"

constexpr int PARTS = sizeof(A) == 4 ? 3 : 1;

// An infinity or NaN stays as it is, and leaves nothing over.
__device__ __forceinline__ float leading(float x) {
    return fabsf(x) < __int_as_float(0x7F800000) ? __uint_as_float(__float_as_uint(x) & 0xFFFF0000u) : x;
}
__device__ __forceinline__ float rest(float x) {
    return fabsf(x) < __int_as_float(0x7F800000) ? x - leading(x) : 0.f;
}

// 16 bytes of x, from column k of row t on, to their place in each part; xs is [PARTS][rows][columns].
template <class Tile> __device__ __forceinline__ void put_x(Tile xs, int t, int k, uint4 v, M) {
    *(uint4*)&xs[0][t][k] = v;
}
template <class Tile> __device__ __forceinline__ void put_x(Tile xs, int t, int k, uint4 v, float) {
    float left[4];
    unpack(v, left, 0.f);
#pragma unroll
    for (int p = 0; p < PARTS; p++) {
        *(uint2*)&xs[p][t][k] = make_uint2(pair(leading(left[0]), leading(left[1])),
                                           pair(leading(left[2]), leading(left[3])));
#pragma unroll
        for (int e = 0; e < 4; e++) left[e] = rest(left[e]);
    }
}
