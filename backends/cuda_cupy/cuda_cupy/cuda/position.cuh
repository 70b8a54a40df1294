// A position of the cache as LANES lanes hold it: SIZE / LANES elements each of a key and a value.
#pragma once
#include "paged.cuh"

constexpr int E = SIZE / LANES, BYTES = E * sizeof(C);

__device__ __forceinline__ float element(const u32* words, int e, float) {
    return __uint_as_float(words[e]);
}
__device__ __forceinline__ float element(const u32* words, int e, bf16) {
    return __uint_as_float(e % 2 ? words[e / 2] & 0xFFFF0000u : words[e / 2] << 16);
}
__device__ __forceinline__ float element(const u32* words, int e, f16) {
    return widen(f16{(u16)(words[e / 2] >> e % 2 * 16)});
}
__device__ __forceinline__ float element(const u32* words, int e, i8) {
    return (float)(i8)(words[e / 4] >> e % 4 * 8);
}

// The lane's elements of a row, by the widest loads that its alignment allows.
__device__ __forceinline__ void load_row(const C* at, float (&out)[E]) {
    if constexpr (BYTES % 4 == 0) {
        u32 words[(BYTES + 3) / 4];
        if constexpr (BYTES % 16 == 0) {
#pragma unroll
            for (int i = 0; i < BYTES / 16; i++) {
                const uint4 v = ((const uint4*)at)[i];
                words[4 * i] = v.x; words[4 * i + 1] = v.y; words[4 * i + 2] = v.z;
                words[4 * i + 3] = v.w;
            }
        } else if constexpr (BYTES % 8 == 0) {
#pragma unroll
            for (int i = 0; i < BYTES / 8; i++) {
                const uint2 v = ((const uint2*)at)[i];
                words[2 * i] = v.x; words[2 * i + 1] = v.y;
            }
        } else {
#pragma unroll
            for (int i = 0; i < BYTES / 4; i++) words[i] = ((const u32*)at)[i];
        }
#pragma unroll
        for (int e = 0; e < E; e++) out[e] = element(words, e, C());
    } else {
#pragma unroll
        for (int e = 0; e < E; e++) out[e] = widen(at[e]);
    }
}

// What a lane holds of a position.
struct Place {
    float key[E], value[E], key_scale = 1.f, value_scale = 1.f;
    __device__ __forceinline__ Place(const C* cache, const float* scales, long long slot, int lane,
                                     long long side_step, int kv_heads, int kv_head) {
        const long long row = slot * kv_heads + kv_head;
        load_row(cache + row * SIZE + lane * E, key);
        load_row(cache + (side_step + row) * SIZE + lane * E, value);
#if QUANTIZED
        key_scale = scales[row];
        value_scale = scales[side_step + row];
#endif
    }
};
