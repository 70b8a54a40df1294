// linear, qkv_linear, gate_up_swiglu and quantized_linear with many rows of x in f16 or bf16, on tensor
// cores; sums in float32.
//
// Moves     x once for each TILE_N rows of weights, the weights once for each TILE_T rows of x.
// Threads   a block of 4 warps a tile of TILE_T tokens x TILE_N outputs, over its part of K (split.cuh), the
//           warps 2 x 2 over it. Tiles of up to three matrices are counted on. Along K it goes 32 columns at
//           a time: copies of the next strips, as many as 48 KB hold, are on their way while the warps
//           multiply the present one, 16 x 8 x 16 at a time (ptx.cuh has the map of an mma's lanes). A warp
//           of the largest tile multiplies 64 x 64: half of what 64 x 32 asks of shared memory.
// Banks     a row is four pieces of 16 bytes. Piece p of row r lies where p ^ (r / 2) % 4 would: the eight
//           rows that a load takes at once are in different banks, without room between them.
// Codes     go to shared memory as whole numbers, which 16 bits hold exactly. Their sums are scaled at
//           the end of each group; with zeros, a column of ones gives sum(x) for the correction.
// GATED     a warp's outputs are half gate, half up, of the same rows: swiglu reads float32 sums.
// Source    core/ops/linear.py, core/ops/quantized.py; PTX ISA, mma.m16n8k16, ldmatrix, cp.async.
#include "numbers.cuh"
#include "silu.cuh"

#define STRIP 32
#define MT (TILE_T / 32)  // mma tiles of a warp, along the tokens
#define NT (TILE_N / 16)  // and along the outputs
#define STAGES (49152 / (2 * STRIP * (TILE_T + TILE_N)))
#define OUTPUTS (GATED ? TILE_N / 2 : TILE_N)  // of a tile
#define SUMS (4 * MT * NT)
#include "split.cuh"

#if BITS
typedef u8 stored;
#else
typedef A stored;
#endif

// Eight codes of a row of weights as 16-bit numbers, without their scale.
__device__ inline uint4 codes16(const u8 *w, long long n, int k, int width, A kind)
{
    float v[8];
    if (BITS == 8) {
        load8((const i8 *)w + n * width + k, v);
    } else {
        unsigned word = *(const unsigned *)(w + n * (width / 2) + k / 2);
        for (int i = 0; i < 8; i++)
            v[i] = (float)(word >> 4 * i & 15) - (ZEROS ? 0 : 8);
    }
    return packed(v, kind);
}

// Where piece p of row r of a strip lies.
__device__ inline int place(int r, int p) { return r * STRIP + (p ^ r / 2 % 4) * 8; }

extern "C" __global__ void __launch_bounds__(128)
gemm_mma(const A *x, const stored *w0, const stored *w1, const stored *w2, const float *scales,
         const float *zeros, const B *b0, const B *b1, const B *b2, O *y0, O *y1, O *y2, float *parts,
         int *counters, int tokens, int n0, int n1, int n2, int width, int group, int groups, int columns)
{
    take_turn();
    __shared__ __align__(16) unsigned short xs[STAGES][TILE_T * STRIP], ws[STAGES][TILE_N * STRIP];
    int tile = blockIdx.x, tiles0 = (n0 + OUTPUTS - 1) / OUTPUTS, tiles1 = (n1 + OUTPUTS - 1) / OUTPUTS;
    int which = GATED || tile < tiles0 ? 0 : tile < tiles0 + tiles1 ? 1 : 2;
    tile -= which == 0 ? 0 : which == 1 ? tiles0 : tiles0 + tiles1;
    const stored *w = which == 0 ? w0 : which == 1 ? w1 : w2;
    const B *bias = which == 0 ? b0 : which == 1 ? b1 : b2;
    O *y = which == 0 ? y0 : which == 1 ? y1 : y2;
    int count = which == 0 ? n0 : which == 1 ? n1 : n2;
    int first_n = tile * OUTPUTS, first_t = blockIdx.y * TILE_T;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4 * 2;
    int at_t = warp / 2 * (TILE_T / 2), at_n = warp % 2 * (TILE_N / 2);
    int begin = blockIdx.z * columns, end = min(width, begin + columns);
    int strips = (end - begin + STRIP - 1) / STRIP;
    A kind = {0};
    float sum[MT][NT][4] = {{{0}}};
#if BITS
    float part[MT][NT][4] = {{{0}}};  // of the present group
    float ones[MT][4] = {{0}};        // sums of x, in every column
    uint4 arrived[TILE_N / 32];
    const uint4 none = make_uint4(0, 0, 0, 0);
#endif

    int line = threadIdx.x / 4, piece = threadIdx.x % 4, to = place(line, piece);  // that it copies
    const A *x_from = x + (long long)(first_t + line) * width + piece * 8;
    for (int s = 1 - STAGES; s < strips; s++) {
        int next = s + STAGES - 1, slot = next % STAGES, k = begin + next * STRIP;
        if (s >= 0) {
            WAIT_FOR_ALL_BUT(STAGES - 2);
            __syncthreads();  // strip s is there, and strip s - 1 is used up
        }
        if (next < strips) {
            bool inside = k + piece * 8 < end;
            #pragma unroll
            for (int i = 0; i < TILE_T; i += 32)
                copy16_if(inside && first_t + line + i < tokens, &xs[slot][to + i * STRIP],
                          x_from + (long long)i * width + k);
            #pragma unroll
            for (int i = 0; i < TILE_N; i += 32) {
                int row = line + i, n = first_n + row;
                const stored *from = w;
                if (GATED) {
                    n = first_n + row / (TILE_N / 2) * (TILE_N / 4) + row % (TILE_N / 4);
                    from = row % (TILE_N / 2) < TILE_N / 4 ? w0 : w1;
                }
#if BITS
                arrived[i / 32] = inside && n < count ? codes16(from, n, k + piece * 8, width, kind)
                                                      : none;
#else
                copy16_if(inside && n < count, &ws[slot][to + i * STRIP],
                          from + (long long)n * width + k + piece * 8);
#endif
            }
        }
        commit();
        if (s >= 0) {
            const unsigned short *xt = xs[s % STAGES], *wt = ws[s % STAGES];
            #pragma unroll
            for (int inner = 0; inner < STRIP / 8; inner += 2) {
                unsigned a[MT][4];
                #pragma unroll
                for (int t = 0; t < MT; t++)
                    load_tiles(a[t], &xt[place(at_t + 16 * t + lane % 16, inner + lane / 16)]);
                #pragma unroll
                for (int n = 0; n < NT; n += 2) {
                    unsigned b[4];  // of two tiles, 8 outputs each
                    load_tiles(b, &wt[place(at_n + 8 * n + lane % 8 + lane / 16 * 8,
                                            inner + lane / 8 % 2)]);
                    #pragma unroll
                    for (int j = 0; j < 2; j++)
                        #pragma unroll
                        for (int t = 0; t < MT; t++)
#if BITS
                            mma(part[t][n + j], a[t], b[2 * j], b[2 * j + 1], kind);
#else
                            mma(sum[t][n + j], a[t], b[2 * j], b[2 * j + 1], kind);
#endif
                }
#if BITS && ZEROS
                #pragma unroll
                for (int t = 0; t < MT; t++)
                    mma(ones[t], a[t], pack(1, 1, kind), pack(1, 1, kind), kind);
#endif
            }
#if BITS
            int past = begin + (s + 1) * STRIP;
            if (past >= end || past % group == 0) {  // the end of a group
                #pragma unroll
                for (int n = 0; n < NT; n++)
                    #pragma unroll
                    for (int j = 0; j < 2; j++) {
                        long long at = (long long)min(first_n + at_n + 8 * n + c + j, count - 1)
                            * groups + (past - STRIP) / group;
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
#if BITS
        if (next < strips)
            #pragma unroll
            for (int i = 0; i < TILE_N; i += 32)
                *(uint4 *)&ws[slot][to + i * STRIP] = arrived[i / 32];
#endif
    }
    if (!sums_are_whole(&sum[0][0][0], parts, counters))
        return;
    #pragma unroll
    for (int t = 0; t < MT; t++)
        #pragma unroll
        for (int n = 0; n < (GATED ? NT / 2 : NT); n++)
            #pragma unroll
            for (int j = 0; j < 4; j++) {
                int token = first_t + at_t + 16 * t + g + j / 2 * 8;
                int out = first_n + at_n / (GATED ? 2 : 1) + 8 * n + c + j % 2;
                if (token < tokens && out < count)
                    store(&y[(long long)token * count + out], GATED ?
                          silu(sum[t][n][j]) * sum[t][n + NT / 2][j] :
                          sum[t][n][j] + (bias ? to_float(bias[out]) : 0));
            }
}
