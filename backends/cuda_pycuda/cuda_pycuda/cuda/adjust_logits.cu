// adjust_logits: out = logits, single ones penalised and biased, and -Inf where a mask forbids a token.
//
// Moves     the logits in and out, once: 64 MB for 256 rows of 128,256 in 16 bits. Entries and mask are
//           little beside them.
// Threads   blockIdx.y is the row, blockIdx.x a part of it. A thread copies PIECE neighbours: 16 bytes
//           where rows begin at such borders. Then the block's threads go through the row's entries
//           and write over those that lie in its part.
// Rounding  the definition's: a product and a sum are two steps, which the compiler may not fuse.
// Source    core/ops/logits.py.
#include "numbers.cuh"
#include "teams.cuh"

__device__ inline bool allowed(const int *mask, int id) { return !mask || mask[id / 32] >> id % 32 & 1; }

extern "C" __global__ void adjust_logits(const A *logits, const int *starts, const int *ids,
                                         const float *penalties, const float *add, const int *mask,
                                         A *out, int width, int words)
{
    take_turn();
    int r = blockIdx.y, begin = blockIdx.x * blockDim.x * PIECE;
    int end = min(width, begin + (int)blockDim.x * PIECE), i = begin + (int)threadIdx.x * PIECE;
    logits += (long long)r * width;
    out += (long long)r * width;
    if (mask)
        mask += (long long)r * words;
    if (i < end) {
#if PIECE > 1
        float v[PIECE];
        unpack(*(const uint4 *)&logits[i], v, A());
        unsigned bits = mask ? (unsigned)mask[i / 32] >> i % 32 : EVERY_LANE;
        #pragma unroll
        for (int e = 0; e < PIECE; e++)
            v[e] = bits >> e & 1 ? v[e] : -INFINITE;
        *(uint4 *)&out[i] = packed(v, A());
#else
        store(&out[i], allowed(mask, i) ? to_float(logits[i]) : -INFINITE);
#endif
    }
    __syncthreads();
    for (int e = starts[r] + threadIdx.x; e < starts[r + 1]; e += blockDim.x) {
        int id = ids[e];
        if (id < begin || id >= end)
            continue;
        float x = to_float(logits[id]);
        x = x > 0 ? x / penalties[e] : __fmul_rn(x, penalties[e]);
        store(&out[id], allowed(mask, id) ? x + add[e] : -INFINITE);
    }
}
