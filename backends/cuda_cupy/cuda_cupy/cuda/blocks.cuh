// Weights in blocks: w = step * scale * code - min_step * minimum, a step a block of BLOCK columns, a scale
// a group of GROUP; codes of 4 to 6 bits, low nibbles apart from the bits above them.
//
// Compile-time: BITS; GROUP; BLOCK; SCALES and ZEROS, whether there are scales, and minimums.
#pragma once
#include "quant.cuh"

constexpr float MIDDLE = 1 << (BITS - 1);
constexpr int UPPER = BITS - 4;  // bits above a nibble
static_assert(BLOCK % 32 == 0 && GROUP % 16 == 0, "pieces must lie within a block, halves within a group");

struct Blocks {
    const u8* codes; const u8* high; const f16* steps; const i8* scales; const f16* min_steps;
    const i8* minimums;
    // Of the group that holds element `at`, counted through the whole matrix.
    __device__ __forceinline__ float scale(long long at) const {
        const float step = widen(steps[at / BLOCK]);
        return SCALES ? step * scales[at / GROUP] : step;
    }
    // What is subtracted from scale * code in that group.
    __device__ __forceinline__ float least(long long at) const {
        const float step = widen(min_steps[at / BLOCK]);
        return SCALES ? step * minimums[at / GROUP] : step;
    }
    // What a weight of that group is less than scale * (code - MIDDLE).
    __device__ __forceinline__ float offset(long long at) const { return least(at) - MIDDLE * scale(at); }
    // The upper bits of the 16 codes from `at` on, at most 32 bits.
    __device__ __forceinline__ u32 upper16(long long at) const {
        if (UPPER == 0) return 0;
        return UPPER == 1 ? *(const u16*)(high + at / 8) : *(const u32*)(high + at / 4);
    }
};

// Eight codes less MIDDLE: a word of nibbles, and their upper bits from the lowest of `upper` on.
__device__ __forceinline__ void decode_block(u32 word, u32 upper, float* w) {
    u32 even = word & 0x0F0F0F0Fu, odd = word >> 4 & 0x0F0F0F0Fu;
    if (UPPER == 1) {  // two bits to a byte
        upper = (upper & 0xFF | upper << 12 & 0xFF000u) & 0x000F000Fu;
        upper = (upper | upper << 6) & 0x03030303u;
        even |= (upper & 0x01010101u) << 4;
        odd |= (upper & 0x02020202u) << 3;
    } else if (UPPER == 2) {  // four bits to a byte
        upper = (upper & 0xFFFF | upper << 8) & 0x00FF00FFu;
        upper = (upper | upper << 4) & 0x0F0F0F0Fu;
        even |= (upper & 0x03030303u) << 4;
        odd |= (upper & 0x0C0C0C0Cu) << 2;
    }
    float first[4], second[4];
    bytes_to_floats(even, MIDDLE, first);
    bytes_to_floats(odd, MIDDLE, second);
#pragma unroll
    for (int e = 0; e < 4; e++) {
        w[2 * e] = first[e];
        w[2 * e + 1] = second[e];
    }
}
