// linear for one row of x, with up to three matrices that share x (query, key and value): out = W x +
// bias. Moves every weight once; x comes from L2 once a block. See stream.cuh for the mapping.
#include "epilogue.cuh"
#include "stream.cuh"

struct Matrix { const W* weight; const W* bias; O* out; int rows; };

extern "C" __global__ void __launch_bounds__(WARPS * 32)
gemv(const A* x, const W* w0, const W* w1, const W* w2, const W* b0, const W* b1, const W* b2,
     O* y0, O* y1, O* y2, int n0, int n1, int n2) {
    __shared__ uint4 staged[STAGED];
    __shared__ float partial[WARPS][OWNED];
    const int total = n0 + n1 + n2, warp = threadIdx.x / 32;
    const int base = (blockIdx.x * TEAMS + warp / KSPLIT) * OWNED;
    auto matrix = [&](int& n) {
        n = min(n, total - 1);  // the last team may own rows beyond the end: it repeats the last row
        if (n < n0) return Matrix{w0, b0, y0, n0};
        n -= n0;
        if (n < n1) return Matrix{w1, b1, y1, n1};
        n -= n1;
        return Matrix{w2, b2, y2, n2};
    };
    auto store = [&](int index, float sum) {
        int n = base + index;
        if (n >= total) return;
        const Matrix m = matrix(n);
        put_sum(m.out, m.bias, n, sum);
    };
    pdl_launch();
    stream_rows(staged,
        [&](int step, int r) {
            int n = base + step * ROWS + r;
            const Matrix m = matrix(n);
            return m.weight + (long long)n * K;
        },
        [&] { pdl_wait(); stage_plain(x, staged); __syncthreads(); },
        [&](int step, float (&sums)[ROWS]) {
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                if (threadIdx.x % 32 == 0) {
                    if (KSPLIT == 1) store(step * ROWS + r, sums[r]);
                    else partial[warp][step * ROWS + r] = sums[r];
                }
        });
    if (KSPLIT > 1) {
        __syncthreads();
        const int index = threadIdx.x % 32;
        if (warp % KSPLIT == 0 && index < OWNED) store(index, add_parts(partial, warp, index));
    }
}
