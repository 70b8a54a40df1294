// Where tokens are: the sequence of a query, and the place of a position in the paged cache.
#pragma once
#include "common.cuh"

// The sequence of query row t, and how many positions it sees (0 where the sequence is empty).
struct Query { int sequence, seen; };
__device__ __forceinline__ Query locate(int t, const int* starts, const int* lengths, int sequences,
                                        int context) {
    int low = 0, high = sequences;  // the last sequence that starts at or before t
    if (t < sequences && starts[t] == t && starts[t + 1] > t) low = t, high = t + 1;  // a token each
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (starts[middle] <= t) low = middle; else high = middle;
    }
    const int length = lengths[low];
    // never beyond the block table, whatever the lengths say
    return {low, length ? max(0, min(context, length - starts[low + 1] + t + 1)) : 0};
}

// The cache row of a position: block_table[s][p / BS] * BS + p % BS, in units of Hkv heads.
__device__ __forceinline__ long long slot_of(const int* table, int position) {
    return (long long)table[position / BLOCK] * BLOCK + position % BLOCK;
}
