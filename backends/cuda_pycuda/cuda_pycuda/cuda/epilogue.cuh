// The epilogue of gemv.cu and quantized_gemv.cu: a warp has the dot products of its ROWS rows with x.

// Writes y[n] = sum + bias[n] from row `first` on, for up to three matrices whose rows are counted on.
// Lane r stores row r.
__device__ inline void store_rows(const float sum[ROWS], int first, const B *bias0, const B *bias1,
                                  const B *bias2, O *y0, O *y1, O *y2, int n0, int n1, int n2)
{
    #pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int n = first + r;
        if (threadIdx.x % 32 != r || n >= n0 + n1 + n2)
            continue;
        const B *bias = n < n0 ? bias0 : n < n0 + n1 ? bias1 : bias2;
        O *y = n < n0 ? y0 : n < n0 + n1 ? y1 : y2;
        n -= n < n0 ? 0 : n < n0 + n1 ? n0 : n0 + n1;
        store(&y[n], sum[r] + (bias ? to_float(bias[n]) : 0));
    }
}

#if ROWS == 2
// Writes y[n] = silu(gate) * up for row n of a gate and an up matrix.
__device__ inline void store_gated(const float sum[ROWS], int n, A *y, int count)
{
    if (threadIdx.x % 32 == 0 && n < count)
        store(&y[n], silu(sum[0]) * sum[1]);
}
#endif
