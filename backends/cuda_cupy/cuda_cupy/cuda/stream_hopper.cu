// x W^T with few rows of x (up to COLUMNS), 16-bit, on Hopper's tensor cores (sm_90a): up to three matrices W
// of one width as one product, or silu(x gate^T) * (x up^T) where GATED. It streams W: 64 rows of it are
// wgmma's first operand, the rows of x its second, so that few rows of x leave no tensor core idle.
//
// A block takes 128 rows of W (64 of gate and the same of up) and a part of K: SPLIT blocks, a cluster, share
// a tile's K, and add up in order out of each other's shared memory. How a row is summed depends on W's shape
// alone. One warp asks for W and x by the copy engine, STAGES ahead, for W before the wait for x. A block
// leaves room beside it on its multiprocessor: the next kernel asks for its weights while this one ends.
#include "hopper.cuh"

constexpr int DEEP = 64;                                    // of K, a stage: 128 bytes
constexpr int HALF = 64 * DEEP * 2;                         // bytes of 64 rows of W
constexpr int STAGE = 2 * HALF + COLUMNS * DEEP * 2;
constexpr int OUTPUTS = GATED ? 64 : 128;                   // rows of out of a tile

#if SPLIT > 1
constexpr int PITCH = 64 + 4;  // floats: tokens lie in different banks
#define CLUSTER __cluster_dims__(SPLIT, 1, 1)
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
__device__ __forceinline__ float4 load_of(const float* at, int block) {  // of the cluster
    u32 there;
    float4 v;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared_address(at)), "r"(block));
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(there) : "memory");
    return v;
}
__device__ __forceinline__ float4 total(const float* part) {  // over the blocks, in order
    float4 sum = load_of(part, 0);
#pragma unroll
    for (int s = 1; s < SPLIT; s++) {
        const float4 v = load_of(part, s);
        sum.x += v.x; sum.y += v.y; sum.z += v.z; sum.w += v.w;
    }
    return sum;
}
#else
#define CLUSTER
#endif

__device__ __forceinline__ float finish(float sum, float up, const A* bias, int row) {
    if (GATED) return silu(sum) * up;
    return bias ? sum + widen(bias[row]) : sum;
}

extern "C" __global__ void CLUSTER __launch_bounds__(160)
stream_hopper(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w0,
              const __grid_constant__ TensorMap w1, const __grid_constant__ TensorMap w2, const A* bias0,
              const A* bias1, const A* bias2, O* out0, O* out1, O* out2, int tokens, int width, int n0, int n1,
              int n2) {
    extern __shared__ __align__(1024) u8 shared[];
    u64* const barriers = (u64*)(shared + STAGES * STAGE);  // free, then full, by stage
    pdl_launch();
    const int tid = threadIdx.x, lane = tid % 32, tile = blockIdx.x / SPLIT, rank = blockIdx.x % SPLIT;
    const int first = (n0 + OUTPUTS - 1) / OUTPUTS, second = first + (n1 + OUTPUTS - 1) / OUTPUTS;
    const int which = GATED || tile < first ? 0 : tile < second ? 1 : 2;
    const int row = (tile - (which == 0 ? 0 : which == 1 ? first : second)) * OUTPUTS;  // of W, the first
    const int rows = which == 0 ? n0 : which == 1 ? n1 : n2;
    const A* const bias = which == 0 ? bias0 : which == 1 ? bias1 : bias2;
    O* const out = which == 0 ? out0 : which == 1 ? out1 : out2;
    const int all = (width + DEEP - 1) / DEEP, each = (all + SPLIT - 1) / SPLIT;
    const int start = rank * each, steps = max(0, min(each, all - start));

    if (tid == 0) {
        for (int i = 0; i < 2 * STAGES; i++) barrier_init(barriers + i, 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();

    float sums[2][COLUMNS / 2] = {};  // of the two halves
    if (tid >= 128) {
        if (lane == 0) {
            const TensorMap* const w = which == 0 ? &w0 : which == 1 ? &w1 : &w2;
            const auto stream = [&](int k) {
                u8* const to = shared + k % STAGES * STAGE;
                u64* const full = barriers + STAGES + k % STAGES;
                barrier_expect(full, STAGE);
                copy_box(to, w, (start + k) * DEEP, row, full);
                if (GATED) copy_box(to + HALF, &w1, (start + k) * DEEP, row, full);
            };
            const auto fetch = [&](int k) {
                copy_box(shared + k % STAGES * STAGE + 2 * HALF, &x, (start + k) * DEEP, 0,
                         barriers + STAGES + k % STAGES);
            };
            for (int k = 0; k < min(STAGES, steps); k++) stream(k);
            pdl_wait();
            for (int k = 0; k < min(STAGES, steps); k++) fetch(k);
            for (int k = STAGES; k < steps; k++) {
                barrier_wait(barriers + k % STAGES, k / STAGES % 2 ^ 1);
                stream(k);
                fetch(k);
            }
        }
        __syncwarp();
    } else {
        for (int k = 0; k < steps; k++) {
            const u8* const from = shared + k % STAGES * STAGE;
            barrier_wait(barriers + STAGES + k % STAGES, k / STAGES % 2);
            hold(sums[0]);
            hold(sums[1]);
            wgmma_begin();
#pragma unroll
            for (int i = 0; i < DEEP / 16; i++)
#pragma unroll
                for (int m = 0; m < 2; m++)
                    wgmma(sums[m], describe(from + m * HALF + i * 32), describe(from + 2 * HALF + i * 32), 1);
            wgmma_end();
            wgmma_wait<1>();  // the products of the stage before
            hold(sums[0]);
            hold(sums[1]);
            if (tid == 0 && k > 0) barrier_arrive(barriers + (k - 1) % STAGES);
        }
        wgmma_wait<0>();
        hold(sums[0]);
        hold(sums[1]);
        pdl_wait();  // out may still be in use
    }

    const int column = tid / 32 * 16 + lane / 4, token = lane % 4 * 2;  // of the first sum, in a half
#if SPLIT > 1
    float* const parts = (float*)shared;  // by half, token, row; the stages are read
    if (tid < 128) {
        group_sync(0);
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int i = 0; i < COLUMNS / 2; i++)
                parts[(m * COLUMNS + token + i / 4 * 8 + i % 2) * PITCH + column + i % 4 / 2 * 8] = sums[m][i];
    }
    cluster_sync();
    if (tid < 128)
        for (int i = tid; i < COLUMNS / SPLIT * OUTPUTS / 4; i += 128) {
            const int t = rank * (COLUMNS / SPLIT) + i / (OUTPUTS / 4), at = i % (OUTPUTS / 4) * 4;
            if (t >= tokens || row + at >= rows) continue;
            const float4 a = total(parts + (at / 64 * COLUMNS + t) * PITCH + at % 64);
            const float4 b = GATED ? total(parts + (COLUMNS + t) * PITCH + at) : a;
            O* const to = out + (long long)t * rows + row + at;
            to[0] = narrow<O>(finish(a.x, b.x, bias, row + at));
            to[1] = narrow<O>(finish(a.y, b.y, bias, row + at + 1));
            to[2] = narrow<O>(finish(a.z, b.z, bias, row + at + 2));
            to[3] = narrow<O>(finish(a.w, b.w, bias, row + at + 3));
        }
    cluster_sync();  // the others have read this block's sums
#else
    if (tid >= 128) return;
#pragma unroll
    for (int m = 0; m < (GATED ? 1 : 2); m++)
#pragma unroll
        for (int i = 0; i < COLUMNS / 2; i++) {
            const int t = token + i / 4 * 8 + i % 2, at = row + m * 64 + column + i % 4 / 2 * 8;
            if (t < tokens && at < rows)
                out[(long long)t * rows + at] = narrow<O>(finish(sums[m][i], sums[1][i], bias, at));
        }
#endif
}
