// Products of 2 to 16 rows of x, 16-bit, on tensor cores: up to three with one x, or gate and up with swiglu.
// Reads every weight once; x comes from the caches, once for each tile of rows.
//
// A block takes TILES tiles of 16 rows of weights; its SPLIT warps share the columns, and add up in order: how
// a row is summed depends on K alone. Weights go from memory to the tensor cores' registers: a product may sum
// over columns in any order, so a lane takes eight that lie side by side, of weights and x alike. Weights are
// asked for before the wait for x. With GATED, a tile is 8 rows of gate, then the same 8 of up.
#include "mma.cuh"

constexpr int CHUNK = 32;  // columns: eight for each of the four lanes that share a row
constexpr int CHUNKS = K / CHUNK, MOST = (CHUNKS + SPLIT - 1) / SPLIT;  // of a row, of a warp
constexpr int AHEAD = MOST < DEPTH ? MOST : DEPTH;                      // chunks on their way
constexpr int HALF = GATED ? 8 : 16;                                    // rows of out of a tile

extern "C" __global__ void __launch_bounds__(SPLIT * 32, SPLIT > 8 ? 1 : 2)
skinny(const A* x, const A* w0, const A* w1, const A* w2, const A* b0, const A* b1, const A* b2, O* o0, O* o1,
       O* o2, int tokens, int n0, int n1, int n2) {
    __shared__ float4 partial[SPLIT][TILES][COLUMNS][32];
    pdl_launch();
    const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32;
    constexpr int ROWS = TILES * HALF;  // of out, of a block
    const int tiles0 = (n0 + ROWS - 1) / ROWS, tiles1 = (n1 + ROWS - 1) / ROWS;
    const int which = GATED || (int)blockIdx.x < tiles0 ? 0 : (int)blockIdx.x < tiles0 + tiles1 ? 1 : 2;
    const int block = blockIdx.x - (which > 0 ? tiles0 : 0) - (which > 1 ? tiles1 : 0);  // of one weight
    const int n = which == 0 ? n0 : which == 1 ? n1 : n2;
    const A* weight = which == 0 ? w0 : which == 1 ? w1 : w2;
    const A* bias = which == 0 ? b0 : which == 1 ? b1 : b2;
    O* out = which == 0 ? o0 : which == 1 ? o1 : o2;
    const int start = warp * MOST;  // chunk of the warp's first
    const uint4* rows[TILES][2];
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {  // rows beyond the end repeat the last one
            const int row = min(block * ROWS + m * HALF + lane / 4 + (GATED ? 0 : 8 * h), n - 1);
            const A* from = (GATED && h ? w1 : weight) + (long long)row * K;
            rows[m][h] = (const uint4*)(from + start * CHUNK) + lane % 4;
        }
    uint4 held[AHEAD][TILES][2];
    auto load = [&](int i) {
        if (i < MOST && start + i < CHUNKS) {
#pragma unroll
            for (int m = 0; m < TILES; m++)
#pragma unroll
                for (int h = 0; h < 2; h++) held[i % AHEAD][m][h] = load_once(rows[m][h] + 4 * i);
        }
    };
#pragma unroll
    for (int i = 0; i < AHEAD; i++) load(i);
    pdl_wait();

    float sums[TILES][COLUMNS][4] = {};
    const uint4* xs[COLUMNS];
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
        const int token = min(c * 8 + lane / 4, tokens - 1);
        xs[c] = (const uint4*)(x + (long long)token * K + start * CHUNK) + lane % 4;
    }
#pragma unroll
    for (int i = 0; i < MOST; i++) {
        if (start + i < CHUNKS) {
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) {
                const uint4 v = xs[c][4 * i];
#pragma unroll
                for (int m = 0; m < TILES; m++) {
                    const uint4 a = held[i % AHEAD][m][0], b = held[i % AHEAD][m][1];
                    mma(sums[m][c], {a.x, b.x, a.y, b.y}, v.x, v.y);
                    mma(sums[m][c], {a.z, b.z, a.w, b.w}, v.z, v.w);
                }
            }
        }
        load(i + AHEAD);
    }

#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int c = 0; c < COLUMNS; c++)
            partial[warp][m][c][lane] = make_float4(sums[m][c][0], sums[m][c][1], sums[m][c][2], sums[m][c][3]);
    __syncthreads();
    for (int i = tid; i < TILES * COLUMNS * 32; i += SPLIT * 32) {
        const int m = i / 32 / COLUMNS, c = i / 32 % COLUMNS, at = i % 32;
        float sum[4] = {};
#pragma unroll
        for (int s = 0; s < SPLIT; s++) {
            const float4 part = partial[s][m][c][at];
            sum[0] += part.x; sum[1] += part.y; sum[2] += part.z; sum[3] += part.w;
        }
        const int row = block * ROWS + m * HALF + at / 4, token = c * 8 + at % 4 * 2;
        auto put = [&](int token, int row, float value) {
            if (token >= tokens || row >= n) return;
            if (!GATED && bias) value += widen(bias[row]);
            out[(long long)token * n + row] = narrow<O>(value);
        };
#pragma unroll
        for (int j = 0; j < 2; j++) {
            if (GATED) {
                put(token + j, row, silu(sum[j]) * sum[j + 2]);
            } else {
                put(token + j, row, sum[j]);
                put(token + j, row + 8, sum[j + 2]);
            }
        }
    }
}
