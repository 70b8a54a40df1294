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
#endif

#if NORM
// x = (a + b) / sqrt(mean((a + b)^2) + eps) * weight; sum = a + b.
typedef struct { const A *a, *b; const G *weight; A *sum; float eps; } source;

__device__ inline void start_x(source) {}  // nothing to copy

__device__ inline void make_x(source from)
{
    A kind = {0};
    float squares = 0;
    for (int i = threadIdx.x; i < K / X_PER; i += 32 * WARPS) {
        float x[X_PER], more[X_PER];
        unpack(((const uint4 *)from.a)[i], x, kind);
        unpack(((const uint4 *)from.b)[i], more, kind);
        for (int j = 0; j < X_PER; j++)
            x[j] += more[j];
        uint4 rounded = packed(x, kind);  // as later layers see it
        unpack(rounded, x, kind);
        for (int j = 0; j < X_PER; j++)
            squares += x[j] * x[j];
        *place(i) = rounded;
        if (blockIdx.x == 0)
            ((uint4 *)from.sum)[i] = rounded;
    }
    float scale = 1 / sqrtf(block_sum(squares) / K + from.eps);
    for (int i = threadIdx.x; i < K / X_PER; i += 32 * WARPS) {  // each thread the pieces it wrote
        float x[X_PER];
        unpack(*place(i), x, kind);
        for (int j = 0; j < X_PER; j++)
            x[j] *= scale * to_float(from.weight[i * X_PER + j]);
        *place(i) = packed(x, kind);
    }
}
#else
typedef const A *source;

// Start the copies, which belong to the group that is committed next.
__device__ inline void start_x(source x)
{
#if STAGED
    for (int i = threadIdx.x; i < K / X_PER; i += 32 * WARPS)
        copy16(place(i), x + i * X_PER);
#endif
}

__device__ inline void make_x(source) {}  // it is there
#endif

// When each thread has waited for its copies: make x, and wait for the other threads.
__device__ inline void finish_x(source from)
{
    make_x(from);
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
