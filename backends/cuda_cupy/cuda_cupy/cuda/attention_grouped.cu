// attention, one query token at a time, 16-bit, on tensor cores: for decode steps of many sequences, and
// where ALONE for those sequences of a mixed step that have one query.
// Moves the keys and values that the token sees once, for up to 8 query heads of a key/value head.
//
// A block takes one query token, the query heads of one key/value head, and one part of the context; its
// warps take 16 positions in turn, with online softmax in float32 registers. Keys and values go from the
// cache to the tensor cores' registers without shared memory: a product may sum over a head's elements in
// any order, and may give its rows in any, so a lane takes elements that lie side by side.
// scores [8 heads of 16, 8 positions] = q k^T, then sums^T [16 elements, 8 heads] += v^T weights^T, whose
// second operand is laid out as the first product's result is.
// int8 codes, exact in 16 bits, stay codes: a key's scale goes to its scores, a value's to its weights.
#include "merge.cuh"
#include "mma.cuh"
#include "paged.cuh"

constexpr int HEADS = 8, TILE = 16, STEPS = SIZE / 16;
constexpr int SPAN = 256;  // positions below which splitting the context does not pay
constexpr int KEY = SIZE / 4, VALUE = SIZE / 8;  // elements of a key, of a value that a lane takes

// N elements that lie side by side, as they are in the cache.
template <int N> struct Held {
    static constexpr int WORDS = N * sizeof(C) / 4;
    u32 words[WORDS];
    __device__ __forceinline__ void load(const C* at) {
        if constexpr (WORDS % 4 == 0) {
#pragma unroll
            for (int i = 0; i < WORDS / 4; i++) {
                const uint4 v = ((const uint4*)at)[i];
                words[4 * i] = v.x; words[4 * i + 1] = v.y; words[4 * i + 2] = v.z; words[4 * i + 3] = v.w;
            }
        } else if constexpr (WORDS % 2 == 0) {
#pragma unroll
            for (int i = 0; i < WORDS / 2; i++) {
                const uint2 v = ((const uint2*)at)[i];
                words[2 * i] = v.x; words[2 * i + 1] = v.y;
            }
        } else {
#pragma unroll
            for (int i = 0; i < WORDS; i++) words[i] = ((const u32*)at)[i];
        }
    }
    __device__ __forceinline__ float code(int e) const { return (float)(i8)(words[e / 4] >> e % 4 * 8); }
    // elements 2 i and 2 i + 1 as two numbers of 16 bits
    __device__ __forceinline__ u32 two(int i) const {
#if QUANTIZED
        return pair(code(2 * i), code(2 * i + 1));
#else
        return words[i];
#endif
    }
};
// element e of two rows, as two numbers of 16 bits
__device__ __forceinline__ u32 beside(const Held<VALUE>& a, const Held<VALUE>& b, int e) {
#if QUANTIZED
    return pair(a.code(e), b.code(e));
#else
    return __byte_perm(a.words[e / 2], b.words[e / 2], e % 2 ? 0x7632 : 0x5410);
#endif
}

// The position of a tile whose weight i a lane has.
__device__ __forceinline__ int seen_by(int lane, int i) { return lane % 4 * 2 + i % 2 + i / 2 * 8; }

extern "C" __global__ void __launch_bounds__(WARPS * 32, SIZE > 64 ? 8 / WARPS : 16 / WARPS)
attention_grouped(const A* q, const C* cache, const float* scales, const int* table, const int* starts,
                  const int* lengths, A* out, float* scratch, int* arrived, int sequences, int width,
                  int heads, int kv_heads, long long side_step, float scale) {
    __shared__ __align__(8) float values[WARPS][HEADS][SIZE];
    __shared__ Partial parts[WARPS][HEADS];
    pdl_launch();
    const int t = ALONE ? starts[blockIdx.x] : blockIdx.x, group_size = heads / kv_heads, chunks = (group_size + HEADS - 1) / HEADS;
    const int kv_head = blockIdx.y / chunks, first = blockIdx.y % chunks * HEADS;
    const int mine = min(HEADS, group_size - first), head = kv_head * group_size + first;
    const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32, splits = gridDim.z;
    if (ALONE && starts[blockIdx.x + 1] - t != 1) return pdl_wait();
    const Query query = ALONE ? Query{(int)blockIdx.x, min(width * BLOCK, lengths[blockIdx.x])}
                              : locate(t, starts, lengths, sequences, width * BLOCK);
    const int even = (query.seen + splits - 1) / splits;
    const int span = max(SPAN, (even + TILE - 1) / TILE * TILE);
    const int begin = blockIdx.z * span, end = min(query.seen, begin + span);
    const int live = (query.seen + span - 1) / span;
    if (begin >= end) {
        pdl_wait();
        if (query.seen == 0 && blockIdx.z == 0) nothing_seen(out, (long long)t * heads + head, mine);
        return;
    }
    table += (long long)query.sequence * width;
    // a tile of a block's size or less has one look-up
    auto look_up = [&](int base) { return (u32)slot_of(table, min(base, end - 1)); };
    // of a position in the cache; beyond the end, the last one's. 2^32 rows are more than a GPU's memory
    auto row = [&](int base, u32 slot, int offset) {
        const int at = min(offset, end - 1 - base);
        return (BLOCK % TILE == 0 ? slot + at : (u32)slot_of(table, base + at)) * kv_heads + kv_head;
    };
    const C* keys = cache + lane % 4 * KEY;
    const C* values_at = cache + side_step * SIZE + lane / 4 * VALUE;
    Held<KEY> key[2];      // of positions lane / 4 and 8 more
    Held<VALUE> value[4];  // of the positions whose weights the lane has
    float key_scale[4], value_scale[4];
    auto load_keys = [&](int base, u32 slot) {
#pragma unroll
        for (int i = 0; i < 2; i++)
            key[i].load(keys + (u64)row(base, slot, lane / 4 + 8 * i) * SIZE);
    };
    auto load_values = [&](int base, u32 slot) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const u64 at = row(base, slot, seen_by(lane, i));
            value[i].load(values_at + at * SIZE);
#if QUANTIZED
            key_scale[i] = scales[at];
            value_scale[i] = scales[side_step + at];
#endif
        }
    };
    int base = begin + warp * TILE;
    u32 slot = look_up(base);
    pdl_wait();  // lengths and tables are older than this step: see step.cu
    if (base < end) load_keys(base, slot), load_values(base, slot);
    slot = look_up(base + WARPS * TILE);
    u32 queries[STEPS][2];
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
        const int at = min(lane / 4, mine - 1);  // heads beyond the group repeat the last one
        const A* from = q + ((long long)t * heads + head + at) * SIZE + lane % 4 * KEY + 4 * k;
        const uint2 v = *(const uint2*)from;
        queries[k][0] = v.x;
        queries[k][1] = v.y;
    }

    float peak = LOWEST, total = 0.f;  // of head lane / 4
    float sums[STEPS][4] = {};         // of heads lane % 4 * 2 and the one after it
    const float to_base_2 = scale * 1.44269504088896f;
    for (; base < end; base += WARPS * TILE) {
        const int after = base + WARPS * TILE;  // its keys are on their way from here on, its values from the end
        float scores[2][4] = {};
#pragma unroll
        for (int k = 0; k < STEPS; k++)
#pragma unroll
            for (int n = 0; n < 2; n++)
                mma(scores[n], {queries[k][0], 0u, queries[k][1], 0u}, key[n].two(2 * k), key[n].two(2 * k + 1));
        if (after < end) load_keys(after, slot);
        float weights[4], highest = peak;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            weights[i] = scores[i / 2][i % 2] * to_base_2;
#if QUANTIZED
            weights[i] *= key_scale[i];
#endif
            if (base + seen_by(lane, i) >= end) weights[i] = LOWEST;
            highest = fmaxf(highest, weights[i]);
        }
        highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 1));
        highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 2));
        if (__any_sync(~0u, highest > peak)) {
            const float rescale = exp2f(peak - highest);
            peak = highest;
            total *= rescale;
            const float even_head = __shfl_sync(~0u, rescale, lane % 4 * 8);
            const float odd_head = __shfl_sync(~0u, rescale, lane % 4 * 8 + 4);
#pragma unroll
            for (int m = 0; m < STEPS; m++) {
                sums[m][0] *= even_head; sums[m][2] *= even_head;
                sums[m][1] *= odd_head; sums[m][3] *= odd_head;
            }
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            weights[i] = weights[i] == LOWEST ? 0.f : exp2f(weights[i] - peak);
            total += weights[i];
#if QUANTIZED
            if (weights[i] != 0.f) weights[i] *= value_scale[i];
#endif
        }
        const u32 low = pair(weights[0], weights[1]), high = pair(weights[2], weights[3]);
#pragma unroll
        for (int m = 0; m < STEPS; m++)
            mma(sums[m], {beside(value[0], value[1], 2 * m),
                          beside(value[0], value[1], 2 * m + 1),
                          beside(value[2], value[3], 2 * m),
                          beside(value[2], value[3], 2 * m + 1)}, low, high);
        if (after < end) load_values(after, slot);
        slot = look_up(after + WARPS * TILE);
    }

    total += __shfl_xor_sync(~0u, total, 1);
    total += __shfl_xor_sync(~0u, total, 2);
    if (lane % 4 == 0) parts[warp][lane / 4] = {peak, total};
#pragma unroll
    for (int m = 0; m < STEPS; m++) {
        const int e = lane / 4 * VALUE + 2 * m;
        *(float2*)&values[warp][lane % 4 * 2][e] = make_float2(sums[m][0], sums[m][2]);
        *(float2*)&values[warp][lane % 4 * 2 + 1][e] = make_float2(sums[m][1], sums[m][3]);
    }
    __syncthreads();
    const int at = blockIdx.x;  // of its results in scratch
    out += (long long)(t - at) * heads * SIZE;
    merge(values, parts, {at, head, mine, heads, (int)blockIdx.z, live, splits}, out, scratch, arrived);
}
