// attention for many queries a sequence, 16-bit, on Hopper's tensor cores (sm_90a). A block takes
// GROUPS * 64 queries of one sequence and head: a warpgroup of four warps for each 64, and one that
// brings keys and values, 128 positions at a time, by the copy engine, ahead of those that use them.
// A warpgroup's scores of the next positions and its sum of the last values are computed by the tensor
// cores while it exponentiates. Source: FlashAttention-3, Shah and others, 2024, arXiv:2407.08608.
#include "hopper.cuh"
#include "paged.cuh"
#include "place.cuh"

constexpr int TILE = 128, STEPS = SIZE / 16, PANELS = SIZE / 64;  // a panel has 64 columns: 128 bytes
constexpr int PANEL = TILE * 128, SIDE = PANELS * PANEL;          // bytes, of keys or values of a tile
constexpr float LOWEST = -1e30f;
constexpr int FREE = 0, FULL = STAGES;  // barriers of keys by stage; those of values follow

__device__ __forceinline__ float power_of_2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

extern "C" __global__ void __launch_bounds__((GROUPS + 1) * 128, 1)
attention_hopper(const __grid_constant__ TensorMap map, const A* q, const int* table, const int* starts,
                 const int* lengths, A* out, int sequences, int width, int heads, int kv_heads, int slots,
                 float scale) {
    extern __shared__ __align__(1024) u8 shared[];
    u8* queries = shared;                              // [GROUPS][PANELS][64] rows of 128 bytes
    u8* const keys = shared + GROUPS * PANELS * 8192;  // [STAGES][PANELS][TILE]
    u8* const values = keys + STAGES * SIDE;
    u64 (*const barriers)[2 * STAGES] = (u64 (*)[2 * STAGES])(values + STAGES * SIDE);
    pdl_launch();
    const int group = threadIdx.x / 128, head = blockIdx.x, kv_head = head / (heads / kv_heads);
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2 * STAGES; i++)
            for (int side = 0; side < 2; side++)
                barrier_init(&barriers[side][i], i < FULL ? GROUPS : 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    pdl_wait();
    const Place here = place<GROUPS * 64>(blockIdx.y, starts, sequences);
    const int s = here.sequence, start = here.start, stop = here.stop;
    if (s < 0) return;
    const int length = lengths[s], before = length - starts[s + 1] + 1;  // query t sees before + t
    const int seen = length ? max(0, min(width * BLOCK, before + stop - 1)) : 0;
    const int tiles = (seen + TILE - 1) / TILE;

    if (group == GROUPS) {
        fewer_registers<IDLE_REGISTERS>();
        if (threadIdx.x % 128 >= 32) return;
        table += (long long)s * width;
        constexpr int COPIES = TILE / BLOCK;
        for (int i = 0; i < tiles; i++) {
            const int stage = i % STAGES, parity = i / STAGES % 2, first = i * TILE;
            const int copies = min(COPIES, (seen - first + BLOCK - 1) / BLOCK);
            const int lane = threadIdx.x % 32, at = lane % COPIES, panel = lane / COPIES;
            const bool mine = lane < COPIES * PANELS && at < copies;
            const int slot = mine ? table[first / BLOCK + at] * BLOCK : 0;
            for (int side = 0; side < 2; side++) {
                u64* const full = &barriers[side][FULL + stage];
                barrier_wait(&barriers[side][FREE + stage], parity ^ 1);
                if (lane == 0) barrier_expect(full, copies * BLOCK * SIZE * 2);
                __syncwarp();
                if (mine)
                    copy_box((side ? values : keys) + stage * SIDE + panel * PANEL + at * BLOCK * 128,
                             &map, panel * 64, kv_head, side * slots + slot, full);
            }
        }
        return;
    }

    more_registers<REGISTERS>();
    const int tid = threadIdx.x % 128, warp = tid / 32, lane = tid % 32;
    const int base = start + group * 64;  // its first query
    queries += group * PANELS * 8192;
    for (int c = tid; c < 64 * SIZE / 8; c += 128) {
        const int row = c / (SIZE / 8), piece = c % (SIZE / 8), t = min(base + row, stop - 1);
        *(uint4*)(queries + piece / 8 * 8192 + row * 128 + (piece % 8 ^ row % 8) * 16) =
            *(const uint4*)(q + ((long long)t * heads + head) * SIZE + piece * 8);
    }
    publish();
    group_sync(group);

    float scores[TILE / 2], sums[SIZE / 2], peak[2] = {LOWEST, LOWEST}, total[2] = {};
    u32 weights[TILE / 4];
#pragma unroll
    for (int i = 0; i < SIZE / 2; i++) sums[i] = 0.f;
    const int row = base + warp * 16 + lane / 4;  // and row + 8
    const int own = base < stop ? max(0, min(seen, before + min(stop, base + 64) - 1)) : 0;
    const int needed = (own + TILE - 1) / TILE;  // tiles that its queries see
    const float to_base_2 = scale * 1.44269504088896f;

    const int whole = min(min(before + base, seen) / TILE, needed);  // that all its queries see

    const auto score = [&](int i) {  // begins scores = queries keys^T of tile i
        const u8* const tile = keys + i % STAGES * SIDE;
        barrier_wait(&barriers[0][FULL + i % STAGES], i / STAGES % 2);
        hold(scores);
        wgmma_begin();
#pragma unroll
        for (int k = 0; k < STEPS; k++)
            wgmma(scores, describe(queries + k / 4 * 8192 + k % 4 * 32),
                  describe(tile + k / 4 * PANEL + k % 4 * 32), k > 0);
        wgmma_end();
    };
    const auto add = [&](int i) {  // begins sums += weights values of tile i
        const u8* const tile = values + i % STAGES * SIDE;
        hold(sums);
        wgmma_begin();
#pragma unroll
        for (int k = 0; k < TILE / 16; k++) wgmma(sums, weights + 4 * k, describe(tile + k * 2048, PANEL));
        wgmma_end();
    };
    const auto release = [&](int side, int i) {
        if (tid == 0) barrier_arrive(&barriers[side][FREE + i % STAGES]);
    };
    const auto hide = [&](int i) {  // what a query does not see
        const int first = i * TILE + lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < TILE / 2; n++) {
            const int position = first + n / 4 * 8 + n % 2;
            if (position >= min(before + row + n % 4 / 2 * 8, seen)) scores[n] = -__int_as_float(0x7F800000);
        }
    };
    float rescale[2];
    const auto exponentiate = [&] {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float highest = scores[2 * r];
#pragma unroll
            for (int n = 2 * r; n < TILE / 2; n += 4)
                highest = fmaxf(highest, fmaxf(scores[n], scores[n + 1]));
            highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 1));
            highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 2));
            highest = fmaxf(peak[r], highest * to_base_2);
            rescale[r] = power_of_2(peak[r] - highest);
            peak[r] = highest;
            total[r] *= rescale[r];
#pragma unroll
            for (int n = 2 * r; n < TILE / 2; n += 4) {
#pragma unroll
                for (int j = n; j < n + 2; j++)
                    scores[j] = power_of_2(fmaf(scores[j], to_base_2, -highest));
                total[r] += scores[n] + scores[n + 1];
            }
        }
    };
    // Takes in the values of tile i - 1, and makes weights of the scores of tile i. It begins a
    // turn: at the end of one, the assembler would wait for the values first and exponentiate later.
    const auto settle = [&](int i) {
        wgmma_wait<0>();
        hold(sums);
        if (i > 0) release(1, i - 1);
#pragma unroll
        for (int n = 0; n < SIZE / 2; n++) sums[n] *= rescale[n % 4 / 2];
#pragma unroll
        for (int n = 0; n < TILE / 4; n++) weights[n] = pair(scores[2 * n], scores[2 * n + 1]);
    };
    const auto turn = [&](int i, bool hidden) {
        settle(i - 1);
        score(i);
        barrier_wait(&barriers[1][FULL + (i - 1) % STAGES], (i - 1) / STAGES % 2);
        add(i - 1);
        wgmma_wait<1>();
        hold(scores);
        release(0, i);
        if (hidden) hide(i);
        exponentiate();
    };
    if (needed) {
        score(0);
        wgmma_wait<0>();
        hold(scores);
        release(0, 0);
        hide(0);
        exponentiate();
#pragma unroll 1
        for (int i = 1; i < whole; i++) turn(i, false);
#pragma unroll 1
        for (int i = max(1, whole); i < needed; i++) turn(i, true);
        settle(needed - 1);

        const int last = needed - 1, held = seen - last * TILE;  // positions of it; others may be NaN
        barrier_wait(&barriers[1][FULL + last % STAGES], last / STAGES % 2);
        if (held < TILE) {
            u8* const tile = values + last % STAGES * SIDE;
            for (int c = tid; c < (TILE - held) * PANELS * 8; c += 128) {
                const int line = held + c / 8 % (TILE - held), panel = c / 8 / (TILE - held);
                *(uint4*)(tile + panel * PANEL + line * 128 + c % 8 * 16) = make_uint4(0, 0, 0, 0);
            }
            publish();
            group_sync(group);
        }
        add(last);
        wgmma_wait<0>();
        hold(sums);
        release(1, last);
    }
    if (tid == 0)
        for (int i = needed; i < tiles; i++)  // tiles that only other warpgroups see
            for (int side = 0; side < 2; side++) {
                barrier_wait(&barriers[side][FULL + i % STAGES], i / STAGES % 2);
                barrier_arrive(&barriers[side][FREE + i % STAGES]);
            }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        total[r] += __shfl_xor_sync(~0u, total[r], 1);
        total[r] += __shfl_xor_sync(~0u, total[r], 2);
        const int t = row + r * 8;
        if (t >= stop) continue;
        const float inverse = total[r] == 0.f ? 0.f : 1.f / total[r];
        A* target = out + ((long long)t * heads + head) * SIZE + lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < SIZE / 8; n++)
            *(u32*)(target + n * 8) = pair(sums[4 * n + 2 * r] * inverse, sums[4 * n + 2 * r + 1] * inverse);
    }
}
