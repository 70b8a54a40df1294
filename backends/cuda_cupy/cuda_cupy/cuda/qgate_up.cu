// gate_up.cu with quantised matrices: out = silu(gate x) * (up x), x = rms_norm(a + b) computed by each
// block for itself. Moves codes, scales and zeros once. A warp owns ROWS / 2 rows of each matrix.
#include "epilogue.cuh"
#include "qstream.cuh"
#include "staged_norm.cuh"

static_assert(KSPLIT == 1, "a warp needs whole rows for the gate");

extern "C" __global__ void __launch_bounds__(WARPS * 32)
qgate_up(const A* a, const A* b, const G* norm, const u8* gate, const float* gate_scales,
         const float* gate_zeros, const u8* up, const float* up_scales, const float* up_zeros, A* sum,
         A* out, int rows, float eps) {
    extern __shared__ float4 staged[];
    const int base = (blockIdx.x * WARPS + threadIdx.x / 32) * (ROWS / 2);
    float sums[ROWS];
    pdl_launch();
    stream_codes(staged,
        [&](int r) {
            const long long n = min(base + r / 2, rows - 1);
            return Row{(r % 2 ? up : gate) + n * PIECES * 16,
                       (r % 2 ? up_scales : gate_scales) + n * GROUPS,
                       (r % 2 ? up_zeros : gate_zeros) + n * GROUPS};
        },
        [&] {
            staged_norm(a, b, norm, sum, eps, [&](int c, A (&values)[XVEC]) {
                float wide[XVEC];
#pragma unroll
                for (int e = 0; e < XVEC; e++) wide[e] = widen(values[e]);
                put_chunk(staged, c, wide);
            });
            __syncthreads();
        }, sums);
#pragma unroll
    for (int r = 0; r < ROWS; r += 2)
        put_gated(out, base + r / 2, rows, sums[r], sums[r + 1]);
}
