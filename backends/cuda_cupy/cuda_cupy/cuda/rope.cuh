// The rotation of one pair. The angle is one float32 product, as the definition says.
#pragma once
#include "common.cuh"

// Pair i of a head of `size` elements: (2i, 2i+1) interleaved, else (i, i + size/2).
struct Pair { int first, second; };
__device__ __forceinline__ Pair pair_of(int i, int size, bool interleaved) {
    return interleaved ? Pair{2 * i, 2 * i + 1} : Pair{i, i + size / 2};
}

struct Rotation { float sine, cosine; };
__device__ __forceinline__ Rotation rotation(int position, float frequency) {
    Rotation r;
    sincosf(__fmul_rn((float)position, frequency), &r.sine, &r.cosine);
    return r;
}

template <class T> __device__ __forceinline__ void rotate(const T* x, T* out, Pair p, Rotation r) {
    const float a = widen(x[p.first]), b = widen(x[p.second]);
    out[p.first] = narrow<T>(a * r.cosine - b * r.sine);
    out[p.second] = narrow<T>(b * r.cosine + a * r.sine);
}
