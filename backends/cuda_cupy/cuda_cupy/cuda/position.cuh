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

// The lane's elements of a row, kept as they were loaded, by the widest loads that its alignment allows:
// of 16-bit caches that is half the registers of floats, for rows that wait to be used.
struct Row {
    static constexpr bool PACKED = BYTES % 4 == 0;
    u32 held[PACKED ? BYTES / 4 : E];
    __device__ __forceinline__ void load(const C* at) {
        if constexpr (BYTES % 16 == 0) {
#pragma unroll
            for (int i = 0; i < BYTES / 16; i++) {
                const uint4 v = ((const uint4*)at)[i];
                held[4 * i] = v.x; held[4 * i + 1] = v.y; held[4 * i + 2] = v.z;
                held[4 * i + 3] = v.w;
            }
        } else if constexpr (BYTES % 8 == 0) {
#pragma unroll
            for (int i = 0; i < BYTES / 8; i++) {
                const uint2 v = ((const uint2*)at)[i];
                held[2 * i] = v.x; held[2 * i + 1] = v.y;
            }
        } else if constexpr (PACKED) {
#pragma unroll
            for (int i = 0; i < BYTES / 4; i++) held[i] = ((const u32*)at)[i];
        } else {
#pragma unroll
            for (int e = 0; e < E; e++) held[e] = __float_as_uint(widen(at[e]));
        }
    }
    __device__ __forceinline__ float operator[](int e) const {
        if constexpr (PACKED) return element(held, e, C());
        else return __uint_as_float(held[e]);
    }
};

// A lane's part of a position.
struct Place {
    Row key, value;
    float key_scale = 1.f, value_scale = 1.f;
    __device__ __forceinline__ void load(const C* cache, const float* scales, long long slot, int lane,
                                         long long side_step, int kv_heads, int kv_head) {
        const long long row = slot * kv_heads + kv_head;
        key.load(cache + row * SIZE + lane * E);
        value.load(cache + (side_step + row) * SIZE + lane * E);
#if QUANTIZED
        key_scale = scales[row];
        value_scale = scales[side_step + row];
#endif
    }
};
