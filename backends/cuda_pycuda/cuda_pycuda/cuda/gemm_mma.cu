// linear and quantized_linear with many rows of x in f16 or bf16, on tensor cores; sums in float32.
//
// Moves     x once for each TILE_N rows of weights, the weights once for each TILE_T rows of x.
// Threads   a block of 8 warps a tile of TILE_T tokens x TILE_N outputs, the warps 2 x 4 over it. Along
//           K it goes 32 columns at a time: every thread loads its 16-byte pieces of the next strips
//           into registers, then the warps multiply the present ones out of shared memory, 16 x 8 x 16
//           at a time (ptx.cuh has the map of an mma's lanes), then the pieces are put into the other
//           half of shared memory. Rows there are 40 numbers apart, so that the eight rows which a
//           warp reads at once lie in different banks.
// Codes     go to shared memory as whole numbers, which 16 bits hold exactly. Their sums are scaled at
//           the end of each group; with zeros, a column of ones gives sum(x) for the correction.
// Source    core/ops/linear.py, core/ops/quantized.py; PTX ISA, mma.m16n8k16.
#include "numbers.cuh"

#define STRIP 32
#define STEP (STRIP + 8)
#define MT (TILE_T / 32)  // mma tiles of a warp, along the tokens
#define NT (TILE_N / 32)  // and along the outputs
#define X_PIECES (TILE_T * STRIP / 8 / 256)
#define W_PIECES (TILE_N * STRIP / 8 / 256)

#if BITS
typedef u8 stored;
#else
typedef A stored;
#endif

// Eight numbers of a row of weights as 16-bit numbers; codes without their scale.
__device__ inline uint4 weights16(const stored *w, long long n, int k, int width)
{
#if BITS == 0
    return *(const uint4 *)(w + n * width + k);
#else
    float v[8];
    A kind = {0};
    if (BITS == 8) {
        load8((const i8 *)w + n * width + k, v);
    } else {
        unsigned word = *(const unsigned *)(w + n * (width / 2) + k / 2);
        for (int i = 0; i < 8; i++)
            v[i] = (float)(word >> 4 * i & 15) - (ZEROS ? 0 : 8);
    }
    return packed(v, kind);
#endif
}

extern "C" __global__ void __launch_bounds__(256)
gemm_mma(const A *x, const stored *w, const float *scales, const float *zeros, const B *bias, O *y,
         int tokens, int count, int width, int group, int groups)
{
    take_turn();
    __shared__ __align__(16) unsigned short xs[2][TILE_T][STEP], ws[2][TILE_N][STEP];
    int first_n = blockIdx.x * TILE_N, first_t = blockIdx.y * TILE_T;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4 * 2;
    int at_t = warp / 4 * (TILE_T / 2), at_n = warp % 4 * (TILE_N / 4);
    const uint4 none = make_uint4(0, 0, 0, 0);
    A kind = {0};
    float sum[MT][NT][4] = {{{0}}};
#if BITS
    float part[MT][NT][4] = {{{0}}};  // of the present group
    float ones[MT][4] = {{0}};        // sums of x, in every column
#endif
    uint4 x_next[X_PIECES], w_next[W_PIECES];

    for (int k = -STRIP, half = 0; k < width; k += STRIP, half ^= 1) {
        int next = k + STRIP;
        if (next < width) {
            #pragma unroll
            for (int i = 0; i < X_PIECES; i++) {
                int row = (threadIdx.x + 256 * i) / 4, column = next + threadIdx.x % 4 * 8;
                bool inside = first_t + row < tokens && column < width;
                x_next[i] = inside ? *(const uint4 *)(x + (long long)(first_t + row) * width
                                                      + column) : none;
            }
            #pragma unroll
            for (int i = 0; i < W_PIECES; i++) {
                int row = (threadIdx.x + 256 * i) / 4, column = next + threadIdx.x % 4 * 8;
                bool inside = first_n + row < count && column < width;
                w_next[i] = inside ? weights16(w, first_n + row, column, width) : none;
            }
        }
        if (k >= 0) {
            #pragma unroll
            for (int inner = 0; inner < STRIP; inner += 16) {
                unsigned a[MT][4];
                #pragma unroll
                for (int t = 0; t < MT; t++) {
                    const unsigned short *top = &xs[half][at_t + 16 * t + g][inner + c];
                    const unsigned short *low = top + 8 * STEP;
                    a[t][0] = *(const unsigned *)top;
                    a[t][1] = *(const unsigned *)low;
                    a[t][2] = *(const unsigned *)(top + 8);
                    a[t][3] = *(const unsigned *)(low + 8);
                }
                #pragma unroll
                for (int n = 0; n < NT; n++) {
                    const unsigned short *from = &ws[half][at_n + 8 * n + g][inner + c];
                    unsigned b0 = *(const unsigned *)from, b1 = *(const unsigned *)(from + 8);
                    #pragma unroll
                    for (int t = 0; t < MT; t++)
#if BITS
                        mma(part[t][n], a[t], b0, b1, kind);
#else
                        mma(sum[t][n], a[t], b0, b1, kind);
#endif
                }
#if BITS && ZEROS
                #pragma unroll
                for (int t = 0; t < MT; t++)
                    mma(ones[t], a[t], pack(1, 1, kind), pack(1, 1, kind), kind);
#endif
            }
#if BITS
            if (next >= width || next % group == 0) {  // the end of a group
                #pragma unroll
                for (int n = 0; n < NT; n++)
                    #pragma unroll
                    for (int j = 0; j < 2; j++) {
                        long long at = (long long)min(first_n + at_n + 8 * n + c + j, count - 1)
                            * groups + k / group;
                        float scale = scales[at], zero = ZEROS ? zeros[at] : 0;
                        #pragma unroll
                        for (int t = 0; t < MT; t++) {
                            sum[t][n][j] += scale * (part[t][n][j] - zero * ones[t][j]);
                            sum[t][n][2 + j] += scale * (part[t][n][2 + j] - zero * ones[t][2 + j]);
                            part[t][n][j] = part[t][n][2 + j] = 0;
                        }
                    }
                #pragma unroll
                for (int t = 0; t < MT; t++)
                    ones[t][0] = ones[t][1] = ones[t][2] = ones[t][3] = 0;
            }
#endif
        }
        if (next < width) {
            #pragma unroll
            for (int i = 0; i < X_PIECES; i++)
                *(uint4 *)&xs[half ^ 1][(threadIdx.x + 256 * i) / 4][threadIdx.x % 4 * 8] = x_next[i];
            #pragma unroll
            for (int i = 0; i < W_PIECES; i++)
                *(uint4 *)&ws[half ^ 1][(threadIdx.x + 256 * i) / 4][threadIdx.x % 4 * 8] = w_next[i];
        }
        __syncthreads();
    }
    #pragma unroll
    for (int t = 0; t < MT; t++)
        #pragma unroll
        for (int n = 0; n < NT; n++)
            #pragma unroll
            for (int j = 0; j < 4; j++) {
                int token = first_t + at_t + 16 * t + g + j / 2 * 8;
                int out = first_n + at_n + 8 * n + c + j % 2;
                if (token < tokens && out < count)
                    store(&y[(long long)token * count + out],
                          sum[t][n][j] + (bias ? to_float(bias[out]) : 0));
            }
}
