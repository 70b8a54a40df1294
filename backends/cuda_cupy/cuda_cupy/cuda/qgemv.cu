// quantized_linear for one row of x, with up to three matrices that share x (query, key and value):
// out = W x + bias, W as codes with scales by group. Moves codes, scales and zeros once. See
// qstream.cuh for the mapping.
#include "epilogue.cuh"
#include "qstream.cuh"

struct Matrix {
    const u8* codes; const float* scales; const float* zeros; const B* bias; O* out;
};

extern "C" __global__ void __launch_bounds__(WARPS * 32)
qgemv(const A* x, const u8* c0, const float* s0, const float* z0, const B* b0, O* y0, int n0,
      const u8* c1, const float* s1, const float* z1, const B* b1, O* y1, int n1,
      const u8* c2, const float* s2, const float* z2, const B* b2, O* y2, int n2) {
    extern __shared__ float4 staged[];
    __shared__ float partial[WARPS][ROWS];
    const int rows = n0 + n1 + n2, warp = threadIdx.x / 32;
    const int base = (blockIdx.x * (WARPS / KSPLIT) + warp / KSPLIT) * ROWS;
    auto matrix = [&](int& n) {
        n = min(n, rows - 1);  // the last warp may own rows beyond the end: it repeats the last row
        if (n < n0) return Matrix{c0, s0, z0, b0, y0};
        n -= n0;
        if (n < n1) return Matrix{c1, s1, z1, b1, y1};
        n -= n1;
        return Matrix{c2, s2, z2, b2, y2};
    };
    float sums[ROWS];
    pdl_launch();
    stream_codes(staged,
        [&](int r) {
            int n = base + r;
            const Matrix m = matrix(n);
            return Row{m.codes + (long long)n * PIECES * 16, m.scales + (long long)n * GROUPS,
                       m.zeros + (long long)n * GROUPS};
        },
        [&] { pdl_wait(); stage_plain(x, staged); __syncthreads(); }, sums);
    const int r = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < ROWS; i++)
        if (r == i) partial[warp][i] = sums[i];
    if (KSPLIT > 1) __syncthreads(); else __syncwarp();
    if (warp % KSPLIT || r >= ROWS || base + r >= rows) return;
    const float sum = add_parts(partial, warp, r);
    int n = base + r;
    const Matrix m = matrix(n);
    put_sum(m.out, m.bias, n, sum);
}
