// adjust_logits: penalties, biases and a mask for each row of logits [R, V]. A block takes TILE logits of
// one row into shared memory as floats, changes the few that entries name there, and masks them on
// their way out: each logit is read once and written once.
//
// The products, quotients and sums are the definition's, each rounded; none may become part of another.
#include "common.cuh"

constexpr int THREADS = 256, TILE = 4096, WIDE = ALIGNED ? 16 / sizeof(A) : 1;
constexpr int PIECES = TILE / (THREADS * WIDE);

extern "C" __global__ void __launch_bounds__(THREADS)
adjust_logits(const A* logits, const int* starts, const int* ids, const float* penalties,
              const float* add, const u32* mask, A* out, int width, int words) {
    __shared__ __align__(16) float tile[TILE];
    pdl();
    const int r = blockIdx.y, begin = blockIdx.x * TILE, count = min(TILE, width - begin);
    const float nothing = -__int_as_float(0x7F800000);
    logits += (long long)r * width + begin;
    out += (long long)r * width + begin;
    if (mask) mask += (long long)r * words + begin / 32;
    const int first = threadIdx.x * WIDE, stride = THREADS * WIDE;
    if constexpr (ALIGNED) {
        uint4 held[PIECES];  // all on their way before the first is unpacked
#pragma unroll
        for (int j = 0; j < PIECES; j++)
            if (first + j * stride < count) held[j] = *(const uint4*)(logits + first + j * stride);
#pragma unroll
        for (int j = 0; j < PIECES; j++) {
            float v[16 / sizeof(A)];
            unpack(held[j], v, A());
            if (first + j * stride < count)
#pragma unroll
                for (int e = 0; e < WIDE; e += 4)
                    *(float4*)(tile + first + j * stride + e) = make_float4(v[e], v[e + 1], v[e + 2], v[e + 3]);
        }
    } else {
        for (int i = first; i < count; i += stride) tile[i] = widen(logits[i]);
    }
    __syncthreads();
    for (int e = starts[r] + threadIdx.x; e < starts[r + 1]; e += THREADS) {
        const int i = ids[e] - begin;
        if (ids[e] < begin || i >= count) continue;
        const float x = tile[i];
        tile[i] = __fadd_rn(x > 0 ? __fdiv_rn(x, penalties[e]) : __fmul_rn(x, penalties[e]), add[e]);
    }
    __syncthreads();
    for (int i = first; i < count; i += stride) {
        const u32 bits = mask ? mask[i / 32] >> i % 32 : ~0u;
        if constexpr (ALIGNED) {
            A v[16 / sizeof(A)];
#pragma unroll
            for (int e = 0; e < WIDE; e++) v[e] = narrow<A>(bits >> e & 1 ? tile[i + e] : nothing);
            store(out + i, v);
        } else {
            out[i] = narrow<A>(bits & 1 ? tile[i] : nothing);
        }
    }
}
