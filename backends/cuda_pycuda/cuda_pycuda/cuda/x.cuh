// The row x that the rows of a matrix are multiplied with: lane l of a warp wants PER neighbours of it,
// l * PER into a lap of 32 * PER.
//
// STAGED    a block copies x to shared memory, once, while its first weights are on their way. X_PIECES
//           pieces of 16 bytes make a lane's share. Each run of eight pieces is turned by its number, so
//           that eight neighbouring lanes, which shared memory serves at a time, read from all banks
//           (with four pieces a lane: lane 0 reads piece 0, lane 1 piece 4, lane 2 piece 8, ...):
//
//               x         | 0  1  2  3  4  5  6  7| 8  9 10 11 12 13 14 15|16 17 18 19 20 21 22 23| ...
//               shared    | 0  1  2  3  4  5  6  7|15  8  9 10 11 12 13 14|22 23 16 17 18 19 20 21| ...
//
// NORM      x is rms_norm(a + b): each block makes it for itself, for the launch of a norm costs more than
//           reading a and b from the L2 cache once a block. The first block stores a + b.
// else      from the L1 cache. The warps of a multiprocessor walk along x together, so each lap of their
//           first rows waits for the L2 cache: where a warp has only one row (a matrix of 2,048), that
//           was a third of the time. It is for rows too long for shared memory.

#if STAGED
#define X_PER (16 / (int)sizeof(A))  // numbers of a piece
#define X_PIECES (PER / X_PER)
__shared__ uint4 staged[LAPS * X_PIECES * 32];
#endif

#if STAGED
// Where piece i of x is.
__device__ inline uint4 *place(int i) { return &staged[(i & ~7) | ((i + (i >> 3)) & 7)]; }

// A thread's pieces of x are threadIdx.x, then 32 * WARPS further on, and so on: X_SHARE of them at most.
// Loops over them first load all, so that only one wait for memory is seen.
#define X_SHARE ((K / X_PER + 32 * WARPS - 1) / (32 * WARPS))
#define MY_PIECE(n) ((n) * 32 * WARPS + (int)threadIdx.x)
#endif

#if NORM
// x = (a + b) / sqrt(mean((a + b)^2) + eps) * weight; sum = a + b.
typedef struct { const A *a, *b; const G *weight; A *sum; float eps; } source;

__device__ inline void fill_x(source from)
{
    A kind = {0};
    float x[X_SHARE][X_PER], weight[X_SHARE][X_PER], squares = 0;
    #pragma unroll
    for (int n = 0; n < X_SHARE; n++) {
        int i = MY_PIECE(n);
        if (i >= K / X_PER)
            continue;
        for (int j = 0; j < X_PER; j += 4)
            load4(from.weight + i * X_PER + j, weight[n] + j);
        float more[X_PER];
        unpack(((const uint4 *)from.a)[i], x[n], kind);
        unpack(((const uint4 *)from.b)[i], more, kind);
        for (int j = 0; j < X_PER; j++)
            x[n][j] += more[j];
        uint4 rounded = packed(x[n], kind);  // as later layers see it
        unpack(rounded, x[n], kind);
        for (int j = 0; j < X_PER; j++)
            squares += x[n][j] * x[n][j];
        if (blockIdx.x == 0)
            ((uint4 *)from.sum)[i] = rounded;
    }
    float scale = 1 / sqrtf(block_sum(squares) / K + from.eps);
    #pragma unroll
    for (int n = 0; n < X_SHARE; n++) {
        for (int j = 0; j < X_PER; j++)
            x[n][j] *= scale * weight[n][j];
        if (MY_PIECE(n) < K / X_PER)
            *place(MY_PIECE(n)) = packed(x[n], kind);
    }
}
#else
typedef const A *source;

__device__ inline void fill_x(source x)
{
#if STAGED
    uint4 pieces[X_SHARE];
    #pragma unroll
    for (int n = 0; n < X_SHARE; n++)
        if (MY_PIECE(n) < K / X_PER)
            pieces[n] = ((const uint4 *)x)[MY_PIECE(n)];
    #pragma unroll
    for (int n = 0; n < X_SHARE; n++)
        if (MY_PIECE(n) < K / X_PER)
            *place(MY_PIECE(n)) = pieces[n];
#endif
}
#endif

// Have x in its place, for all threads of the block.
__device__ inline void make_x(source from)
{
    fill_x(from);
#if STAGED
    __syncthreads();
#endif
}

// This lane's numbers of a lap.
__device__ inline void load_x(source x, int lap, float *out)
{
    int lane = threadIdx.x % 32;
#if STAGED
    A kind = {0};
    #pragma unroll
    for (int q = 0; q < X_PIECES; q++)
        unpack(*place((lap * 32 + lane) * X_PIECES + q), out + q * X_PER, kind);
#else
    #pragma unroll
    for (int j = 0; j < PER; j += 4)
        load4(x + (lap * 32 + lane) * PER + j, out + j);
#endif
}
