// x W^T with many rows of x, 16-bit, on Hopper's tensor cores (sm_90a): up to three matrices W of one
// width as one product, or silu(x gate^T) * (x up^T) where GATED. Blocks stay, each takes tiles of 128
// rows of x by COLUMNS rows of W in turn; two warpgroups multiply 64 rows each, one brings the next 64
// of K by the copy engine, STAGES ahead. Sums are float32. Reads x once for every COLUMNS rows of W.
#include "hopper.cuh"

constexpr int ROWS = 128, DEEP = 64;  // of K, a stage: 128 bytes
constexpr int X_BYTES = ROWS * DEEP * 2, W_BYTES = COLUMNS * DEEP * 2, STAGE = X_BYTES + W_BYTES;
constexpr int OUTPUTS = GATED ? COLUMNS / 2 : COLUMNS;  // of a tile, beside each other

struct Part { int matrix, row; };  // of W, and its first row in a tile

__device__ __forceinline__ Part part(int tile, int n0, int n1) {
    const int first = (n0 + OUTPUTS - 1) / OUTPUTS;
    if (GATED || tile < first) return {0, tile * OUTPUTS};
    const int second = (n1 + OUTPUTS - 1) / OUTPUTS;
    if (tile < first + second) return {1, (tile - first) * OUTPUTS};
    return {2, (tile - first - second) * OUTPUTS};
}
__device__ __forceinline__ void put(O* at, float a, float b) {
#if WIDE
    *(float2*)at = make_float2(a, b);
#else
    *(u32*)at = pair(a, b);
#endif
}

extern "C" __global__ void __launch_bounds__(384, 1)
products_hopper(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w0,
                const __grid_constant__ TensorMap w1, const __grid_constant__ TensorMap w2,
                const A* bias0, const A* bias1, const A* bias2, O* out0, O* out1, O* out2, int tokens,
                int width, int n0, int n1, int n2, int tiles) {
    extern __shared__ __align__(1024) u8 shared[];
    u64* const barriers = (u64*)(shared + STAGES * STAGE);  // free, then full, by stage
    pdl_launch();
    const int group = threadIdx.x / 128, across = (tokens + ROWS - 1) / ROWS;
    const int steps = (width + DEEP - 1) / DEEP;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(barriers + i, 2);
            barrier_init(barriers + STAGES + i, 1);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    pdl_wait();
    int turn = 0;  // stages used since the start

    if (group == 2) {
        fewer_registers<24>();
        if (threadIdx.x % 128) return;
        for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
            const Part here = part(tile / across, n0, n1);
            const TensorMap* const w = here.matrix == 0 ? &w0 : here.matrix == 1 ? &w1 : &w2;
            for (int k = 0; k < steps; k++, turn++) {
                const int stage = turn % STAGES;
                u8* const to = shared + stage * STAGE;
                u64* const full = barriers + STAGES + stage;
                barrier_wait(barriers + stage, turn / STAGES % 2 ^ 1);
                barrier_expect(full, STAGE);
                copy_box(to, &x, k * DEEP, tile % across * ROWS, full);
                copy_box(to + X_BYTES, w, k * DEEP, here.row, full);
                if (COLUMNS > 128)
                    copy_box(to + X_BYTES + 128 * DEEP * 2, GATED ? &w1 : w, k * DEEP,
                             here.row + (GATED ? 0 : 128), full);
            }
        }
        return;
    }

    more_registers<240>();
    const int tid = threadIdx.x % 128, lane = tid % 32;
    float sums[COLUMNS / 2];
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        for (int k = 0; k < steps; k++, turn++) {
            const int stage = turn % STAGES;
            const u8* const from = shared + stage * STAGE;
            barrier_wait(barriers + STAGES + stage, turn / STAGES % 2);
            hold(sums);
            wgmma_begin();
#pragma unroll
            for (int i = 0; i < DEEP / 16; i++)
                wgmma(sums, describe(from + group * 64 * DEEP * 2 + i * 32),
                      describe(from + X_BYTES + i * 32), k + i > 0);
            wgmma_end();
            wgmma_wait<1>();  // the products of the stage before
            hold(sums);
            if (tid == 0 && k > 0) barrier_arrive(barriers + (turn - 1) % STAGES);
        }
        wgmma_wait<0>();
        hold(sums);
        if (tid == 0) barrier_arrive(barriers + (turn - 1) % STAGES);

        const Part here = part(tile / across, n0, n1);
        const int rows = here.matrix == 0 ? n0 : here.matrix == 1 ? n1 : n2;
        const A* const bias = here.matrix == 0 ? bias0 : here.matrix == 1 ? bias1 : bias2;
        O* const out = here.matrix == 0 ? out0 : here.matrix == 1 ? out1 : out2;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int t = tile % across * ROWS + group * 64 + tid / 32 * 16 + lane / 4 + r * 8;
#pragma unroll
            for (int n = 0; n < OUTPUTS / 8; n++) {
                const int column = here.row + n * 8 + lane % 4 * 2;
                float a = sums[4 * n + 2 * r], b = sums[4 * n + 2 * r + 1];
                if (t >= tokens || column >= rows) continue;
                if (GATED) {
                    a = silu(a) * sums[OUTPUTS / 2 + 4 * n + 2 * r];
                    b = silu(b) * sums[OUTPUTS / 2 + 4 * n + 2 * r + 1];
                } else if (bias) {
                    a += widen(bias[column]);
                    b += widen(bias[column + 1]);
                }
                put(out + (long long)t * rows + column, a, b);
            }
        }
    }
}
