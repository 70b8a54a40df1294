// Numbers of every dtype as float, one, four or eight at a time. Arithmetic is float32 throughout;
// a dtype is only how a number is stored.
#include "ptx.cuh"

__device__ inline float to_float(float v) { return v; }
__device__ inline float to_float(bf16 v) { return __uint_as_float((unsigned)v.bits << 16); }
__device__ inline float to_float(i8 v) { return (float)v; }
__device__ inline void store(float *at, float v) { *at = v; }

// The two 16-bit numbers of a register, the first in the low half.
__device__ inline void halves(unsigned v, float *out, bf16)
{
    out[0] = __uint_as_float(v << 16);
    out[1] = __uint_as_float(v & 0xffff0000u);
}

__device__ inline void halves(unsigned v, float *out, f16)
{
    f16 low = {(unsigned short)v}, high = {(unsigned short)(v >> 16)};
    out[0] = to_float(low);
    out[1] = to_float(high);
}

// Two floats rounded to 16 bits, in one register.
__device__ inline unsigned pack(float a, float b, bf16)
{
    bf16 low, high;
    store(&low, a);
    store(&high, b);
    return low.bits | (unsigned)high.bits << 16;
}

__device__ inline unsigned pack(float a, float b, f16)
{
    f16 low, high;
    store(&low, a);
    store(&high, b);
    return low.bits | (unsigned)high.bits << 16;
}

// The numbers in 16 bytes that were loaded as they are: 4 floats or 8 16-bit numbers.
__device__ inline void unpack(uint4 v, float *out, float)
{
    out[0] = __uint_as_float(v.x);
    out[1] = __uint_as_float(v.y);
    out[2] = __uint_as_float(v.z);
    out[3] = __uint_as_float(v.w);
}

__device__ inline void unpack(uint4 v, float *out, f16 kind)
{
    halves(v.x, out, kind), halves(v.y, out + 2, kind);
    halves(v.z, out + 4, kind), halves(v.w, out + 6, kind);
}

__device__ inline void unpack(uint4 v, float *out, bf16 kind)
{
    halves(v.x, out, kind), halves(v.y, out + 2, kind);
    halves(v.z, out + 4, kind), halves(v.w, out + 6, kind);
}

// The other way: 4 floats or 8 16-bit numbers, rounded, in 16 bytes.
__device__ inline uint4 packed(const float *v, float)
{
    return make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]),
                      __float_as_uint(v[3]));
}

__device__ inline uint4 packed(const float *v, f16 kind)
{
    return make_uint4(pack(v[0], v[1], kind), pack(v[2], v[3], kind), pack(v[4], v[5], kind),
                      pack(v[6], v[7], kind));
}

__device__ inline uint4 packed(const float *v, bf16 kind)
{
    return make_uint4(pack(v[0], v[1], kind), pack(v[2], v[3], kind), pack(v[4], v[5], kind),
                      pack(v[6], v[7], kind));
}

// Four or eight neighbours, from an address that is a multiple of their size.
__device__ inline void load4(const float *at, float *out) { unpack(*(const uint4 *)at, out, 0.f); }

__device__ inline void load4(const f16 *at, float *out)
{
    uint2 v = *(const uint2 *)at;
    halves(v.x, out, *at), halves(v.y, out + 2, *at);
}

__device__ inline void load4(const bf16 *at, float *out)
{
    uint2 v = *(const uint2 *)at;
    halves(v.x, out, *at), halves(v.y, out + 2, *at);
}

__device__ inline void load8(const float *at, float *out)
{
    load4(at, out);
    load4(at + 4, out + 4);
}

__device__ inline void load8(const f16 *at, float *out) { unpack(*(const uint4 *)at, out, *at); }
__device__ inline void load8(const bf16 *at, float *out) { unpack(*(const uint4 *)at, out, *at); }

__device__ inline void load8(const i8 *at, float *out)
{
    uint2 v = *(const uint2 *)at;
    for (int i = 0; i < 4; i++) {
        out[i] = (float)(i8)(v.x >> 8 * i);
        out[4 + i] = (float)(i8)(v.y >> 8 * i);
    }
}
