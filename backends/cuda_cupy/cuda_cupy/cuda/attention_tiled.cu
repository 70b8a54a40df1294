// attention for many queries a sequence, 16-bit, on tensor cores. A block takes 64 queries of one
// sequence and head, four warps of 16 rows each; keys and values pass through shared memory 64
// positions at a time, with online softmax in float32 registers. int8 codes, exact in 16 bits, stay
// codes: a key's scale goes to its scores, a value's to its probabilities.
// Arithmetic 4 T L d / 2 a head; every block reads the keys and values it sees once, mostly from L2.
#include "mma.cuh"
#include "paged.cuh"
#include "place.cuh"

constexpr int TILE = 64, PAD = SIZE + 8, STEPS = SIZE / 16;  // PAD keeps ldmatrix free of conflicts
constexpr float LOWEST = -1e30f;

// Eight elements of a cache row, or their codes, as A.
__device__ __forceinline__ uint4 load_eight(const C* at) {
#if QUANTIZED
    const uint2 codes = *(const uint2*)at;
    const u32 words[2] = {codes.x, codes.y};
    u32 out[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const u32 both = words[i / 2] >> i % 2 * 16;
        out[i] = pair((float)(i8)both, (float)(i8)(both >> 8));
    }
    return make_uint4(out[0], out[1], out[2], out[3]);
#else
    return *(const uint4*)at;
#endif
}

extern "C" __global__ void __launch_bounds__(128, 2)
attention_tiled(const A* q, const C* cache, const float* scales, const int* table, const int* starts,
                const int* lengths, A* out, int sequences, int width, int heads, int kv_heads,
                long long side_step, float scale) {
    __shared__ __align__(16) A keys[TILE][PAD];
    __shared__ __align__(16) A values[TILE][PAD];
    __shared__ float key_scales[TILE], value_scales[TILE];
    pdl();
    const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32, head = blockIdx.y;
    const int kv_head = head / (heads / kv_heads);
    const Place here = place<TILE>(blockIdx.x, starts, sequences);
    const int s = here.sequence, start = here.start, stop = here.stop;
    if (s < 0) return;
    const int length = lengths[s], before = length - starts[s + 1] + 1;  // query t sees before + t
    const int seen = length ? min(width * BLOCK, before + stop - 1) : 0;
    table += (long long)s * width;

    for (int c = tid; c < TILE * SIZE / 8; c += 128) {  // queries pass through the keys' space
        const int row = c / (SIZE / 8), column = c % (SIZE / 8) * 8;
        const int t = min(start + row, stop - 1);
        *(uint4*)&keys[row][column] = *(const uint4*)(q + ((long long)t * heads + head) * SIZE + column);
    }
    __syncthreads();
    u32 queries[STEPS][4];
    const int matrix = lane / 8, line = lane % 8;
#pragma unroll
    for (int k = 0; k < STEPS; k++)
        load_matrices(queries[k], &keys[warp * 16 + matrix % 2 * 8 + line][k * 16 + matrix / 2 * 8]);
    __syncthreads();

    float sums[SIZE / 8][4] = {}, peak[2] = {LOWEST, LOWEST}, total[2] = {};
    const int row = start + warp * 16 + lane / 4;  // and row + 8
    const float to_base_2 = scale * 1.44269504088896f;
    for (int first = 0; first < seen; first += TILE) {
        for (int c = tid; c < TILE * SIZE / 8; c += 128) {
            const int at = c / (SIZE / 8), column = c % (SIZE / 8) * 8;
            uint4 key = make_uint4(0, 0, 0, 0), value = key;
            if (first + at < seen) {
                const long long place = slot_of(table, first + at) * kv_heads + kv_head;
                key = load_eight(cache + place * SIZE + column);
                value = load_eight(cache + (side_step + place) * SIZE + column);
                if (QUANTIZED && column == 0) {
                    key_scales[at] = scales[place];
                    value_scales[at] = scales[side_step + place];
                }
            }
            *(uint4*)&keys[at][column] = key;
            *(uint4*)&values[at][column] = value;
        }
        __syncthreads();

        float scores[TILE / 8][4] = {};
#pragma unroll
        for (int k = 0; k < STEPS; k++)
#pragma unroll
            for (int n = 0; n < TILE / 8; n += 2) {
                u32 b[4];
                load_matrices(b, &keys[(n + matrix / 2) * 8 + line][k * 16 + matrix % 2 * 8]);
                mma(scores[n], queries[k], b[0], b[1]);
                mma(scores[n + 1], queries[k], b[2], b[3]);
            }
        float highest[2] = {peak[0], peak[1]};
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int at = n * 8 + lane % 4 * 2 + i % 2, position = first + at;
                const bool visible = position < before + row + i / 2 * 8 && position < seen;
                if (QUANTIZED) scores[n][i] *= key_scales[at];
                scores[n][i] = visible ? scores[n][i] * to_base_2 : LOWEST;
                highest[i / 2] = fmaxf(highest[i / 2], scores[n][i]);
            }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            highest[i] = fmaxf(highest[i], __shfl_xor_sync(~0u, highest[i], 1));
            highest[i] = fmaxf(highest[i], __shfl_xor_sync(~0u, highest[i], 2));
            const float rescale = exp2f(peak[i] - highest[i]);
            peak[i] = highest[i];
            total[i] *= rescale;
#pragma unroll
            for (int n = 0; n < SIZE / 8; n++) {
                sums[n][2 * i] *= rescale;
                sums[n][2 * i + 1] *= rescale;
            }
        }
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                scores[n][i] = scores[n][i] == LOWEST ? 0.f : exp2f(scores[n][i] - peak[i / 2]);
                total[i / 2] += scores[n][i];
                if (QUANTIZED && scores[n][i] != 0.f)
                    scores[n][i] *= value_scales[n * 8 + lane % 4 * 2 + i % 2];
            }
#pragma unroll
        for (int k = 0; k < TILE / 16; k++) {
            const u32 weights[4] = {pair(scores[2 * k][0], scores[2 * k][1]),
                                    pair(scores[2 * k][2], scores[2 * k][3]),
                                    pair(scores[2 * k + 1][0], scores[2 * k + 1][1]),
                                    pair(scores[2 * k + 1][2], scores[2 * k + 1][3])};
#pragma unroll
            for (int n = 0; n < SIZE / 8; n += 2) {
                u32 b[4];
                load_transposed(b, &values[k * 16 + matrix % 2 * 8 + line][(n + matrix / 2) * 8]);
                mma(sums[n], weights, b[0], b[1]);
                mma(sums[n + 1], weights, b[2], b[3]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        total[i] += __shfl_xor_sync(~0u, total[i], 1);
        total[i] += __shfl_xor_sync(~0u, total[i], 2);
        const int t = row + i * 8;
        if (t >= stop) continue;
        const float inverse = seen ? 1.f / total[i] : 0.f;
        A* target = out + ((long long)t * heads + head) * SIZE + lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < SIZE / 8; n++)
            *(u32*)(target + n * 8) = pair(sums[n][2 * i] * inverse, sums[n][2 * i + 1] * inverse);
    }
}
