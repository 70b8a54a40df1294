// One row of x as float32 in shared memory, for lanes that each read pieces of VEC elements of it.
//
// Compile-time: A; K; WARPS; before it constexpr VEC.
#pragma once
#include "common.cuh"

constexpr int XPER = VEC / 4;                         // float4s of x for a piece
constexpr int XVEC = 16 / sizeof(A);

// Where float4 c of x lies: lanes that read neighbouring pieces read neighbouring 16 bytes.
__device__ __forceinline__ int quad_place(int c) {
    const int piece = c / XPER;
    return (piece / 32 * XPER + c % XPER) * 32 + piece % 32;
}

// Puts 16 bytes of x, chunk c, in their places.
__device__ __forceinline__ void put_chunk(float4* shared, int c, const float (&v)[XVEC]) {
#pragma unroll
    for (int q = 0; q < XVEC / 4; q++)
        shared[quad_place(c * (XVEC / 4) + q)] =
            make_float4(v[4 * q], v[4 * q + 1], v[4 * q + 2], v[4 * q + 3]);
}

__device__ __forceinline__ void stage_plain(const A* x, float4* shared) {
    constexpr int CHUNKS = K / XVEC, MINE = (CHUNKS + WARPS * 32 - 1) / (WARPS * 32);
    uint4 held[MINE];
#pragma unroll
    for (int m = 0; m < MINE; m++)  // all loads are on their way at once
        if (const int c = threadIdx.x + m * WARPS * 32; c < CHUNKS) held[m] = ((const uint4*)x)[c];
#pragma unroll
    for (int m = 0; m < MINE; m++) {
        float values[XVEC];
        unpack(held[m], values, A());
        if (const int c = threadIdx.x + m * WARPS * 32; c < CHUNKS) put_chunk(shared, c, values);
    }
}
