// Writing to the KV cache [2, slots, Hkv, d].
// kv_cache_write: one warp a (token, head, side); moves each key and value once in and once out.
// rope_kv_write: rope of q, rope of k straight into the cache, v into the cache; one block a token.
#include "rope.cuh"

// cache[side, slot] = row; a negative slot stores nothing
extern "C" __global__ void kv_cache_write(const A* k, const A* v, C* cache, float* scales,
                                          const int* slots, int heads, int size, long long side_step) {
    pdl();
    const int token = blockIdx.x, head = blockIdx.y * (blockDim.x / 32) + threadIdx.x / 32;
    const int side = blockIdx.z, lane = threadIdx.x % 32, slot = slots[token];
    if (slot < 0 || head >= heads) return;
    const A* row = (side ? v : k) + ((long long)token * heads + head) * size;
    const long long target = side * side_step + (long long)slot * heads + head;
    C* out = cache + target * size;
#if QUANTIZED
    float peak = 0.f;
    for (int i = lane; i < size; i += 32) peak = fmaxf(peak, fabsf(widen(row[i])));
    peak = warp_max(peak);
    const float scale = peak > 0.f ? __fdiv_rn(peak, 127.f) : 1.f;
    if (lane == 0) scales[target] = scale;
    for (int i = lane; i < size; i += 32)
        out[i] = (C)fminf(fmaxf(rintf(__fdiv_rn(widen(row[i]), scale)), -127.f), 127.f);
#else
    for (int i = lane; i < size; i += 32) out[i] = narrow<C>(widen(row[i]));
#endif
}

#if !QUANTIZED
extern "C" __global__ void rope_kv_write(const A* q, const A* k, const A* v, const int* positions,
                                         const float* frequency, C* cache, const int* slots, A* out,
                                         int heads, int kv_heads, int size, long long side_step,
                                         int interleaved) {
    pdl_launch();
    const int token = blockIdx.x, half = size / 2, slot = slots[token];
    const int index = blockIdx.y * blockDim.x + threadIdx.x;
    const int head = index / half, i = index % half;
    const Rotation by = rotation(positions[token], frequency[i]);
    pdl_wait();  // slots and positions are older than this step: see step.cu
    if (head >= heads + 2 * kv_heads) return;
    const Pair p = pair_of(i, size, interleaved);
    if (head < heads) {
        const long long at = ((long long)token * heads + head) * size;
        rotate(q + at, out + at, p, by);
        return;
    }
    if (slot < 0) return;
    const bool value = head >= heads + kv_heads;
    const int kv_head = head - heads - (value ? kv_heads : 0);
    const A* row = (value ? v : k) + ((long long)token * kv_heads + kv_head) * size;
    C* target = cache + ((long long)slot * kv_heads + kv_head + (value ? side_step : 0)) * size;
    A rotated[2] = {row[p.first], row[p.second]};
    if (!value) rotate(rotated, rotated, Pair{0, 1}, by);
    target[p.first] = narrow<C>(widen(rotated[0]));
    target[p.second] = narrow<C>(widen(rotated[1]));
}
#endif
