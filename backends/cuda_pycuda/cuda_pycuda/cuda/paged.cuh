// Where a token stands in the paged cache. A cache is [2, blocks, BLOCK, kv heads, SIZE].

typedef struct {
    const int *table, *starts, *lens;  // [S, width], [S + 1], [S]
    int sequences, width;
} batch;

// The sequence of query `token`, of starts[S] total.
__device__ inline int sequence_of(batch b, int token)
{
    int s = 0;
    while (s < b.sequences - 1 && b.starts[s + 1] <= token)
        s++;
    return s;
}

// How many positions query `token` of sequence s sees: the queries are its last ones. 0 when idle.
__device__ inline int positions_seen(batch b, int s, int token)
{
    return b.lens[s] == 0 ? 0 : b.lens[s] - (b.starts[s + 1] - 1 - token);
}

// The row of the cache, in (slot, head) pairs, that holds a position of sequence s.
__device__ inline long long cache_row(batch b, int s, int position, int head, int kv_heads)
{
    long long block = b.table[s * b.width + position / BLOCK];
    return (block * BLOCK + position % BLOCK) * kv_heads + head;
}
