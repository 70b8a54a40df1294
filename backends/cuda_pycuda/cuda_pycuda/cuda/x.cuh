// The row x that the rows of a matrix are multiplied with: lane l of a warp wants PER neighbours of it,
// l * PER into a lap of 32 * PER.
//
// STAGED    a block copies x to shared memory, once, while its first weights are on their way. X_PIECES
//           pieces of 16 bytes make a lane's share; piece q of all lanes lie side by side, so that the
//           loads of a warp touch every bank once:
//
//               x         |lane 0: q0 q1 q2 q3|lane 1: q0 q1 q2 q3| ...
//               shared    |q0 of lanes 0 .. 31|q1 of lanes 0 .. 31| ...
//
// else      from the L1 cache. The warps of a multiprocessor walk along x together, so each lap of their
//           first rows waits for the L2 cache: where a warp has only one row (a matrix of 2,048), that
//           was a third of the time. It is for rows too long for shared memory.

#if STAGED
#define X_PER (16 / (int)sizeof(A))  // numbers of a piece
#define X_PIECES (PER / X_PER)
__shared__ uint4 staged[LAPS * X_PIECES * 32];
#endif

// Start the copies, which belong to the group that is committed next.
__device__ inline void start_x(const A *x)
{
#if STAGED
    for (int i = threadIdx.x; i < K / X_PER; i += 32 * WARPS) {
        int lap = i / X_PIECES / 32, lane = i / X_PIECES % 32, q = i % X_PIECES;
        copy16(&staged[(lap * X_PIECES + q) * 32 + lane], x + i * X_PER);
    }
#endif
}

// When each thread has waited for its copies: wait for the others.
__device__ inline void wait_x(void)
{
#if STAGED
    __syncthreads();
#endif
}

// This lane's numbers of a lap.
__device__ inline void load_x(const A *x, int lap, float *out)
{
    int lane = threadIdx.x % 32;
#if STAGED
    A kind = {0};
    #pragma unroll
    for (int q = 0; q < X_PIECES; q++)
        unpack(staged[(lap * X_PIECES + q) * 32 + lane], out + q * X_PER, kind);
#else
    #pragma unroll
    for (int j = 0; j < PER; j += 4)
        load4(x + (lap * 32 + lane) * PER + j, out + j);
#endif
}
