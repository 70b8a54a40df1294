// The first half of an MLP for one row: out = silu(gate x) * (up x), where x is given, or is
// rms_norm(a + b) (NORM), which each block computes for itself from L2. Moves both matrices once. A
// warp owns rows n of both, interleaved (ROWS = 2); see stream.cuh.
#include "epilogue.cuh"
#include "stream.cuh"
#if NORM
#include "staged_norm.cuh"
#endif

static_assert(ROWS == 2 && KSPLIT == 1, "a warp needs a gate row and an up row");

extern "C" __global__ void __launch_bounds__(WARPS * 32)
#if NORM
gate_up(const A* a, const A* b, const G* norm, const W* gate, const W* up, A* sum, A* out, int rows,
        float eps) {
#else
gate_up(const A* x, const W* gate, const W* up, A* out, int rows) {
#endif
    __shared__ uint4 staged[STAGED];
    const int base = (blockIdx.x * TEAMS + threadIdx.x / 32) * STEPS;
    pdl_launch();
    stream_rows(staged,
        [&](int step, int r) {
            const int n = min(base + step, rows - 1);
            return (r ? up : gate) + (long long)n * K;
        },
        [&] {
#if NORM
            staged_norm(a, b, norm, sum, eps, [&](int c, A (&values)[XVEC]) {
                store((A*)&staged[chunk_place(c)], values);
            });
#else
            pdl_wait();
            stage_plain(x, staged);
#endif
            __syncthreads();
        },
        [&](int step, float (&sums)[ROWS]) {
            put_gated(out, base + step, rows, sums[0], sums[1]);
        });
}
