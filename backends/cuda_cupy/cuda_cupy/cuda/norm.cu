// rms_norm and add_rms_norm: one block a row. Moves x (and b) once, out (and sum) once. Where MINE > 0
// the row is whole 16-byte chunks, of which a thread keeps MINE in registers; else it goes element by
// element and reads the row again for the second pass.
#include "norm_row.cuh"

// Both forms round alike: sum rounded to A, then x * inverse * weight.
template <bool ADD> __device__ __forceinline__ void norm(const A* a, const A* b, const W* weight,
                                                         A* sum, A* out, int width, float eps) {
    const long long start = (long long)blockIdx.x * width;
#if MINE
    constexpr int EACH = 16 / sizeof(A);
    norm_row<ADD, MINE>(a + start, ADD ? b + start : nullptr, weight, ADD ? sum + start : nullptr, ADD,
                        width, blockDim.x, eps,
                        [&](int c, A (&values)[EACH]) { store(out + start + c * EACH, values); });
#else
    float squares = 0.f;
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
    norm<false>(x, nullptr, weight, nullptr, out, width, eps);
}

extern "C" __global__ void add_rms_norm(const A* a, const A* b, const W* weight, A* sum, A* out,
                                        int width, float eps) {
    pdl_launch();
    norm<true>(a, b, weight, sum, out, width, eps);
}
