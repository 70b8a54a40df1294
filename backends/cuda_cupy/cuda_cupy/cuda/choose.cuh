// The parts of sampling: random numbers, sums over a block, and selection by rank or by mass.
#pragma once
#include "common.cuh"

constexpr int THREADS = 512, WARPS = THREADS / 32;
constexpr double UNIT = 1152921504606846976.0;  // 2^60

// The first word of Philox4x32-10 of counter (counter, 0, 0, 0), as a number in [0, 1) of 24 bits.
__device__ float uniform(u32 key0, u32 key1, u32 counter) {
    u32 a = counter, b = 0, c = 0, d = 0;
    for (int round = 0; round < 10; round++) {
        const u64 low = (u64)0xD2511F53u * a, high = (u64)0xCD9E8D57u * c;
        a = (u32)(high >> 32) ^ b ^ key0;
        b = (u32)high;
        c = (u32)(low >> 32) ^ d ^ key1;
        d = (u32)low;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return (a >> 8) * (1.f / 16777216.f);
}

// Doubles as integers of the same order; NaN is the largest.
__device__ __forceinline__ u64 ordered(double x) {
    if (x != x) return ~0ull;
    const u64 bits = __double_as_longlong(x + 0.0);
    return bits >> 63 ? ~bits : bits | 1ull << 63;
}

template <class T> __device__ __forceinline__ T warp_total(T x) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(~0u, x, step);
    return x;
}
template <class T> __device__ T block_total(T x) {
    __shared__ T parts[WARPS];
    x = warp_total(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_total(threadIdx.x % 32 < WARPS ? parts[threadIdx.x % 32] : T());
}

__device__ __forceinline__ double unordered(u64 key) {
    return __longlong_as_double(key >> 63 ? key & ~(1ull << 63) : ~key);
}

// x / by, rounded as a division is, if both are of float32's numbers: 1 / by rounded, and one step of
// Newton's (Markstein 1990, "Computation of elementary functions on the IBM RISC System/6000"). It needs
// no call, which would spill registers.
struct Quotient {
    double by, inverse;
    __device__ explicit Quotient(double by) : by(by), inverse(1 / by) {}
    __device__ __forceinline__ double operator()(double x) const {
        const double near = x * inverse, exact = fma(fma(-near, by, x), inverse, near);
        return exact == exact ? exact : near;  // NaN where x or `by` is infinite, or `by` 0
    }
};

// Largest key, then lowest index.
struct Best { u64 key; int index; };
__device__ __forceinline__ Best better(Best a, Best b) {
    return b.key > a.key || (b.key == a.key && b.index < a.index) ? b : a;
}
__device__ __forceinline__ Best warp_best(Best b) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1)
        b = better(b, {__shfl_xor_sync(~0u, b.key, step), __shfl_xor_sync(~0u, b.index, step)});
    return b;
}
__device__ Best block_best(Best b) {
    __shared__ Best parts[WARPS];
    b = warp_best(b);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = b;
    __syncthreads();
    return warp_best(parts[threadIdx.x % WARPS]);
}

// The first of [begin, end) at which the running sum of weights exceeds `goal`, the last with a weight
// if there is none, else -1. A warp calls it; `running` is the sum before begin, then before the result.
template <class Weight>
__device__ int walk(int begin, int end, double goal, double& running, Weight weight) {
    const int lane = threadIdx.x % 32;
    int final = -1;
    for (int base = begin; base < end; base += 32) {
        double sum = base + lane < end ? weight(base + lane) : 0;
        const u32 positive = __ballot_sync(~0u, sum > 0);
        if (positive) final = base + 31 - __clz(positive);
#pragma unroll
        for (int step = 1; step < 32; step <<= 1) {
            const double o = __shfl_up_sync(~0u, sum, step);
            if (lane >= step) sum += o;
        }
        const u32 past = __ballot_sync(~0u, running + sum > goal);
        if (past) {
            const int at = __ffs(past) - 1;
            const double before = __shfl_sync(~0u, sum, at - (at > 0));
            if (at > 0) running += before;
            return base + at;
        }
        running += __shfl_sync(~0u, sum, 31);
    }
    return final;
}

// The largest key for which the mass of all keys at or above it exceeds `target`; `above` becomes the
// mass of the keys over it. Without any such key: 0. mass(i) is the weight of entry i, key(i) its key.
// Byte by byte from the top: a histogram says in which bin the target falls. After two bytes few
// entries are left, mostly, and wait in a list; only then do six more bytes cost less than two did.
template <class Key, class Mass>
__device__ u64 select(int width, u64 target, u64& above, Key key, Mass mass) {
    constexpr int SHORT = 2048;
    __shared__ u64 bins[256];
    __shared__ u64 found, over;
    __shared__ int list[SHORT], count;
    u64 prefix = 0;
    int left = width;
    bool listed = false;
    above = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        if (threadIdx.x < 256) bins[threadIdx.x] = 0;
        if (threadIdx.x == 0) count = 0;
        __syncthreads();
        if (shift == 40) {
            for (int i = threadIdx.x; i < width; i += THREADS)
                if (key(i) >> 48 == prefix) {
                    const int at = atomicAdd(&count, 1);
                    if (at < SHORT) list[at] = i;
                }
            __syncthreads();
            listed = count <= SHORT;
            if (listed) left = count;
        }
        for (int j = threadIdx.x; j < left; j += THREADS) {
            const int i = listed ? list[j] : j;
            const u64 k = key(i);
            if (shift == 56 || k >> (shift + 8) == prefix) atomicAdd(&bins[k >> shift & 255], mass(i));
        }
        __syncthreads();
        if (threadIdx.x < 32) {  // eight bins a lane, the highest in lane 0
            const int lane = threadIdx.x, top = 255 - 8 * lane;
            u64 mine = 0;
            for (int b = 0; b < 8; b++) mine += bins[top - b];
            u64 upto = above + mine;
#pragma unroll
            for (int step = 1; step < 32; step <<= 1) {
                const u64 o = __shfl_up_sync(~0u, upto - above, step);
                if (lane >= step) upto += o;
            }
            const u32 past = __ballot_sync(~0u, upto > target);
            if (lane == (past ? __ffs(past) - 1 : 31)) {
                int bin = top;
                u64 sum = upto - mine;
                while (bin > top - 7 && sum + bins[bin] <= target) sum += bins[bin--];
                found = bin;
                over = sum;
            }
        }
        __syncthreads();
        prefix = prefix << 8 | found;
        above = over;
        __syncthreads();
    }
    return prefix;
}
