// quantized_embedding and block_embedding: out[t] = w[ids[t]] of a table w in codes. One block a row; it must
// move the codes and scales of that row once, and nothing else of the table.
//
// Compile-time: O; BITS; BLOCKED, and with it those of blocks.cuh.
#if BLOCKED
#include "blocks.cuh"
#else
#include "quant.cuh"
#endif

__device__ __forceinline__ int row_of(const int* ids, int rows) {
    pdl_wait();  // first, as embedding does (elementwise.cu): it takes its place in a step
    pdl_launch();
    return min(max(ids[blockIdx.x], 0), rows - 1);
}

#if BLOCKED
// A thread expands eight columns of one group at a time.
extern "C" __global__ void block_embedding(const int* ids, const u8* codes, const u8* high, const f16* steps,
                                           const i8* scales, const f16* min_steps, const i8* minimums,
                                           O* out, int rows, int width) {
    const Blocks table{codes, high, steps, scales, min_steps, minimums};
    const long long row = row_of(ids, rows);
    for (int k = 8 * threadIdx.x; k < width; k += 8 * blockDim.x) {
        const long long at = row * width + k;
        const float scale = table.scale(at), least = ZEROS ? table.least(at) : 0.f;
        const u32 upper = UPPER == 0 ? 0 : UPPER == 1 ? high[at / 8] : *(const u16*)(high + at / 4);
        float w[8];
        decode_block(*(const u32*)(codes + at / 2), upper, w);
#pragma unroll
        for (int e = 0; e < 8; e++)
            out[(long long)blockIdx.x * width + k + e] =
                narrow<O>(scale * (ZEROS ? w[e] + MIDDLE : w[e]) - least);
    }
}
#else
extern "C" __global__ void quantized_embedding(const int* ids, const u8* codes, const float* scales,
                                               const float* zeros, O* out, int rows, int width, int group,
                                               int groups) {
    const Quantized table{codes, scales, zeros, width, group, groups};
    const int row = row_of(ids, rows);
    for (int k = threadIdx.x; k < width; k += blockDim.x)
        out[(long long)blockIdx.x * width + k] = narrow<O>(table.at(row, k));
}
#endif
