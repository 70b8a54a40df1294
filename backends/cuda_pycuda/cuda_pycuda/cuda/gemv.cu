// linear with one row of x: y[n] = dot(w[n], x) + bias[n], for up to three matrices at once;
// gate_up: y[n] = silu(dot(gate[n], x)) * dot(up[n], x); and add_norm_gate_up, where x is a norm of a + b.
//
// Moves     every weight once: N * K * sizeof(W) bytes, and next to nothing else. This is where a
//           decode step spends its time, and it can go no faster than the memory.
// Threads   a warp takes ROWS rows. Lane l of it takes 16 bytes (PER weights), l * 16 bytes into the
//           row, then the same 512 bytes further on, and so on: LAPS times.
//
//                 row n    |lane 0|lane 1| ... |lane 31|lane 0|lane 1| ... |lane 31| ...
//                          |<-------- lap 0 ---------->|<-------- lap 1 ---------->|
//                 x        |   the PER numbers below each piece: x.cuh               |
//
//           A lane's pieces go through a ring of its own in shared memory: DEPTH laps are on their way
//           while the oldest is used, so that the memory always has work. No lane reads another's
//           pieces, so there is no barrier. At the end the 32 sums of a row are added by shuffles.
// K is a compile-time number: the loops unroll, and no copy waits for a comparison.
// Source    core/ops/linear.py, core/ops/fused.py.
#include "numbers.cuh"
#include "silu.cuh"
#include "teams.cuh"

#define PER (16 / (int)sizeof(W))
#define LAPS ((K + 32 * PER - 1) / (32 * PER))
#include "x.cuh"

typedef W B;
#include "epilogue.cuh"

// Start the copies of this lane's pieces of one lap.
__device__ inline void start_lap(int lap, const W *const rows[ROWS], uint4 slots[ROWS][32])
{
    int lane = threadIdx.x % 32, k = (lap * 32 + lane) * PER;
    #pragma unroll
    for (int r = 0; r < ROWS; r++)
        if (k < K)
            copy16(&slots[r][lane], rows[r] + k);
    commit();
}

// The dot products of ROWS rows with x, in every lane of the warp.
__device__ inline void dot_rows(source x, const W *const rows[ROWS], float sum[ROWS])
{
    __shared__ uint4 ring[WARPS][DEPTH][ROWS][32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int r = 0; r < ROWS; r++)
        sum[r] = 0;
    let_next_start();
    for (int lap = 0; lap < DEPTH; lap++)
        start_lap(lap, rows, ring[warp][lap]);
    wait_for_previous();
    make_x(x);
    #pragma unroll
    for (int lap = 0; lap < LAPS; lap++) {
        int k = (lap * 32 + lane) * PER;
        WAIT_FOR_ALL_BUT(DEPTH - 1);
        if (k < K) {
            float numbers[PER], weights[PER];
            load_x(x, lap, numbers);
            #pragma unroll
            for (int r = 0; r < ROWS; r++) {
                unpack(ring[warp][lap % DEPTH][r][lane], weights, *rows[r]);
                for (int j = 0; j < PER; j++)
                    sum[r] += weights[j] * numbers[j];
            }
        }
        start_lap(lap + DEPTH, rows, ring[warp][lap % DEPTH]);
    }
    for (int r = 0; r < ROWS; r++)
        sum[r] = warp_sum(sum[r]);
}

#if !NORM
extern "C" __global__ void __launch_bounds__(32 * WARPS)
gemv(const A *x, const W *w0, const W *w1, const W *w2, const W *bias0, const W *bias1,
     const W *bias2, O *y0, O *y1, O *y2, int n0, int n1, int n2)
{
    int first = (blockIdx.x * WARPS + threadIdx.x / 32) * ROWS;
    const W *rows[ROWS];
    for (int r = 0; r < ROWS; r++) {  // the matrices' rows are counted on
        int n = min(first + r, n0 + n1 + n2 - 1);
        rows[r] = n < n0 ? w0 + (long long)n * K
            : n < n0 + n1 ? w1 + (long long)(n - n0) * K : w2 + (long long)(n - n0 - n1) * K;
    }
    float sum[ROWS];
    dot_rows(x, rows, sum);
    store_rows(sum, first, bias0, bias1, bias2, y0, y1, y2, n0, n1, n2);
}

#endif

#if ROWS == 2
__device__ inline void gated_rows(source x, const W *gate, const W *up, A *y, int count)
{
    int n = blockIdx.x * WARPS + threadIdx.x / 32;
    long long row = min(n, count - 1);  // all warps of a block are needed for x
    const W *rows[ROWS] = {gate + row * K, up + row * K};
    float sum[ROWS];
    dot_rows(x, rows, sum);
    store_gated(sum, n, y, count);
}

#if NORM
extern "C" __global__ void __launch_bounds__(32 * WARPS)
add_norm_gate_up(const A *a, const A *b, const G *norm, const W *gate, const W *up, A *sum, A *y,
                 int count, float eps)
{
    source x = {a, b, norm, sum, eps};
    gated_rows(x, gate, up, y, count);
}
#else
extern "C" __global__ void __launch_bounds__(32 * WARPS)
gate_up(const A *x, const W *gate, const W *up, A *y, int count)
{
    gated_rows(x, gate, up, y, count);
}
#endif
#endif
