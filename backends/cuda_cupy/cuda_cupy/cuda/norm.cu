// rms_norm and add_rms_norm: one block a row. Moves x (and b) once, out (and sum) once. Where MINE > 0
// the row is whole 16-byte chunks, of which a thread keeps MINE in registers; else it goes element by
// element and reads the row again for the second pass.
#include "norm_weights.cuh"

constexpr int XVEC = 16 / sizeof(A);

// The same roundings in both forms: sum rounded to A, then x * inverse * weight.
template <bool ADD> __device__ __forceinline__ void norm_row(const A* a, const A* b, const W* weight,
                                                             A* sum, A* out, int width, float eps) {
    const long long start = (long long)blockIdx.x * width;
    float squares = 0.f;
#if MINE
    A values[MINE][XVEC];
    float factors[MINE][XVEC];
    const int chunks = width / XVEC;
    load_norm_weights(weight, chunks, blockDim.x, factors);
    pdl_wait();
#pragma unroll
    for (int m = 0; m < MINE; m++) {
        const int c = threadIdx.x + m * blockDim.x;
        if (c >= chunks) continue;
        float x[XVEC], y[XVEC];
        unpack(((const uint4*)(a + start))[c], x, A());
        if (ADD) unpack(((const uint4*)(b + start))[c], y, A());
#pragma unroll
        for (int e = 0; e < XVEC; e++) {
            values[m][e] = narrow<A>(ADD ? x[e] + y[e] : x[e]);
            squares += widen(values[m][e]) * widen(values[m][e]);
        }
        if (ADD) store(sum + start + c * XVEC, values[m]);
    }
    const float inverse = 1.f / sqrtf(block_sum(squares) / width + eps);
#pragma unroll
    for (int m = 0; m < MINE; m++) {
        const int c = threadIdx.x + m * blockDim.x;
        if (c >= chunks) continue;
#pragma unroll
        for (int e = 0; e < XVEC; e++)
            values[m][e] = narrow<A>(widen(values[m][e]) * inverse * factors[m][e]);
        store(out + start + c * XVEC, values[m]);
    }
#else
    pdl_wait();
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        const float x = widen(narrow<A>(widen(a[start + i]) + (ADD ? widen(b[start + i]) : 0.f)));
        if (ADD) sum[start + i] = narrow<A>(x);
        squares += x * x;
    }
    const float inverse = 1.f / sqrtf(block_sum(squares) / width + eps);
    for (int i = threadIdx.x; i < width; i += blockDim.x)  // each thread reads what it wrote
        out[start + i] = narrow<A>(widen((ADD ? sum : a)[start + i]) * inverse * widen(weight[i]));
#endif
}

extern "C" __global__ void rms_norm(const A* x, const W* weight, A* out, int width, float eps) {
    pdl_launch();
    norm_row<false>(x, nullptr, weight, nullptr, out, width, eps);
}

extern "C" __global__ void add_rms_norm(const A* a, const A* b, const W* weight, A* sum, A* out,
                                        int width, float eps) {
    pdl_launch();
    norm_row<true>(a, b, weight, sum, out, width, eps);
}
