// Element types without CUDA's own headers (which a wheel may lack), reductions, and the wait that
// lets a kernel start before the one ahead of it has finished.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char i8;

struct bf16 { u16 bits; };
struct f16 { u16 bits; };

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(i8 x) { return x; }
__device__ __forceinline__ float widen(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
__device__ __forceinline__ float widen(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

// Rounds to nearest even.
template <class T> __device__ __forceinline__ T narrow(float x);
template <> __device__ __forceinline__ float narrow<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 narrow<bf16>(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
template <> __device__ __forceinline__ f16 narrow<f16>(float x) {
    f16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

// The elements of 16 loaded bytes.
__device__ __forceinline__ void unpack(uint4 v, float (&out)[4], float) {
    out[0] = __uint_as_float(v.x); out[1] = __uint_as_float(v.y);
    out[2] = __uint_as_float(v.z); out[3] = __uint_as_float(v.w);
}
__device__ __forceinline__ void unpack(uint4 v, float (&out)[8], bf16) {
    const u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out[2 * i] = __uint_as_float(words[i] << 16);
        out[2 * i + 1] = __uint_as_float(words[i] & 0xFFFF0000u);
    }
}
__device__ __forceinline__ void unpack(uint4 v, float (&out)[8], f16) {
    const u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out[2 * i] = widen(f16{(u16)words[i]});
        out[2 * i + 1] = widen(f16{(u16)(words[i] >> 16)});
    }
}

// 16 bytes of elements to an aligned address.
__device__ __forceinline__ void store(float* at, const float (&v)[4]) {
    *(float4*)at = make_float4(v[0], v[1], v[2], v[3]);
}
template <class T> __device__ __forceinline__ void store(T* at, const T (&v)[8]) {
    u32 words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) words[i] = (u32)v[2 * i].bits | (u32)v[2 * i + 1].bits << 16;
    *(uint4*)at = make_uint4(words[0], words[1], words[2], words[3]);
}

// Weights are read once: they must not push what is used again out of the L1 cache.
__device__ __forceinline__ uint4 load_once(const uint4* address) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(address));
    return v;
}

// Programmatic dependent launch. Nothing that an earlier kernel writes may be read, and nothing that
// it reads may be written, before pdl_wait: buffers of a step are reused. Every kernel calls it, so
// that the end of one kernel also means the end of all before it.
__device__ __forceinline__ void pdl_launch() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ __forceinline__ void pdl_wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void pdl() { pdl_launch(); pdl_wait(); }

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(~0u, x, step);
    return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) x = fmaxf(x, __shfl_xor_sync(~0u, x, step));
    return x;
}

// Over all threads of a block, in a fixed order; every thread gets the result.
__device__ __forceinline__ float block_sum(float x) {
    __shared__ float parts[32];
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_sum(threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : 0.f);
}
__device__ __forceinline__ float block_max(float x) {
    __shared__ float parts[32];
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_max(threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32]
                                                       : -__int_as_float(0x7F800000));
}

// x / (1 + exp(-x)); exp(-x) = inf gives the right answer, -0.
__device__ __forceinline__ float silu(float x) { return x / (1.f + expf(-x)); }
