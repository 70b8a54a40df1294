// Quantised weights: w = scale * (code - zero), codes int8 or two 4-bit ones a byte, low nibble first.
#pragma once
#include "common.cuh"

// Column k of row n. width: columns of the matrix; groups: scales of a row.
struct Quantized {
    const u8* codes; const float* scales; const float* zeros;
    int width, group, groups;
    __device__ __forceinline__ float at(int n, int k) const {
        const long long g = (long long)n * groups + k / group;
#if BITS == 8
        const float code = ((const i8*)codes)[(long long)n * width + k];
        return scales[g] * (zeros ? code - zeros[g] : code);
#else
        const u8 both = codes[(long long)n * ((width + 1) / 2) + k / 2];
        const float code = k % 2 ? both >> 4 : both & 15;
        return scales[g] * (code - (zeros ? zeros[g] : 8.f));
#endif
    }
};

// Four bytes as floats 0..255 less `center`: each byte becomes the low mantissa bits of 2^23, which
// costs a permute and a subtraction instead of a conversion at a quarter of the rate.
__device__ __forceinline__ void bytes_to_floats(u32 word, float center, float* out) {
#pragma unroll
    for (int i = 0; i < 4; i++)
        out[i] = __uint_as_float(__byte_perm(word, 0x4B000000u, 0x7440 + i)) - (8388608.f + center);
}

// The codes of a loaded word as floats, less 0 (8 bits) or 8 (4 bits), in the order of their columns.
constexpr int CODES = BITS == 8 ? 4 : 8;  // of a word; of 4 to 6 bits, their low nibbles
__device__ __forceinline__ void decode(u32 word, float* w) {
#if BITS == 8
    bytes_to_floats(word ^ 0x80808080u, 128.f, w);  // signed bytes, moved up by 128
#else
    float low[4], high[4];
    bytes_to_floats(word & 0x0F0F0F0Fu, 8.f, low);
    bytes_to_floats(word >> 4 & 0x0F0F0F0Fu, 8.f, high);
#pragma unroll
    for (int e = 0; e < 4; e++) {
        w[2 * e] = low[e];
        w[2 * e + 1] = high[e];
    }
#endif
}
