// kv_cache_write: cache[0, slot] = k, cache[1, slot] = v of each token; a negative slot stores nothing.
// rope_kv_write: the same after rotating q and k, in one launch.
//
// Moves     the new keys and values, once in and once out; rope_kv_write also q in and out.
// Threads   kv_cache_write: a warp a (token, head, side), lanes along the head; for an i8 cache the warp
//           finds the largest |x| first. rope_kv_write: a thread a pair, of q, of k, then of v.
// Source    core/ops/attention.py; Kwon et al. 2023, https://arxiv.org/abs/2309.06180.
#include "numbers.cuh"
#include "rotate.cuh"
#include "teams.cuh"

// `side` is the number of elements between a token's key and its value.
extern "C" __global__ void kv_cache_write(const A *k, const A *v, C *cache, float *scales,
                                          const int *slots, int heads, int size, long long side)
{
    take_turn();
    int slot = slots[blockIdx.x], lane = threadIdx.x % 32;
    int head = blockIdx.y * (blockDim.x / 32) + threadIdx.x / 32;
    if (slot < 0 || head >= heads)
        return;
    const A *row = (blockIdx.z ? v : k) + ((long long)blockIdx.x * heads + head) * size;
    long long to = blockIdx.z * side + ((long long)slot * heads + head) * size;
#if CODES
    float peak = 0;
    for (int i = lane; i < size; i += 32)
        peak = fmaxf(peak, fabsf(to_float(row[i])));
    peak = warp_max(peak);
    float scale = peak > 0 ? peak / 127 : 1;
    for (int i = lane; i < size; i += 32)
        cache[to + i] = (C)min(max(rintf(to_float(row[i]) / scale), -127.f), 127.f);
    if (lane == 0)
        scales[to / size] = scale;
#else
    for (int i = lane; i < size; i += 32)
        store(&cache[to + i], to_float(row[i]));
#endif
}

#if !CODES
extern "C" __global__ void rope_kv_write(const A *q, const A *k, const A *v, const int *positions,
                                         const float *inv_freq, C *cache, const int *slots, A *out,
                                         int heads, int kv_heads, int size, long long side,
                                         int interleaved)
{
    let_next_start();
    int i = blockIdx.y * blockDim.x + threadIdx.x, half = size / 2, first, second;
    int head = i / half, slot = slots[blockIdx.x];  // heads of q come first, then of k, then of v
    rotation by = rotation_of(positions[blockIdx.x], inv_freq[i % half]);
    wait_for_previous();
    if (head >= heads + 2 * kv_heads)
        return;
    pair_at(i % half, size, interleaved, &first, &second);
    const A *from = head < heads ? q + ((long long)blockIdx.x * heads + head) * size
        : (head < heads + kv_heads ? k : v)
            + ((long long)blockIdx.x * kv_heads + (head - heads) % kv_heads) * size;
    float a = to_float(from[first]), b = to_float(from[second]);
    if (head < heads + kv_heads)
        rotate(&a, &b, by);
    if (head < heads) {
        A *to = out + ((long long)blockIdx.x * heads + head) * size;
        store(&to[first], a);
        store(&to[second], b);
    } else if (slot >= 0) {
        C *to = cache + (head < heads + kv_heads ? 0 : side)
            + ((long long)slot * kv_heads + (head - heads) % kv_heads) * size;
        A narrow_a, narrow_b;  // a rotated key is first a result in the activations' dtype
        store(&narrow_a, a);
        store(&narrow_b, b);
        store(&to[first], to_float(narrow_a));
        store(&to[second], to_float(narrow_b));
    }
}
#endif
