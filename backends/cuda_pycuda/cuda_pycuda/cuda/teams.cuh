// Sums and maxima over the threads of a warp or a block, and the last block of several.

#define EVERY_LANE 0xffffffffu
#define INFINITE __int_as_float(0x7f800000)

__device__ inline float warp_sum(float v)
{
    for (int step = 16; step > 0; step /= 2)
        v += __shfl_xor_sync(EVERY_LANE, v, step);
    return v;  // in every lane
}

__device__ inline float warp_max(float v)
{
    for (int step = 16; step > 0; step /= 2)
        v = fmaxf(v, __shfl_xor_sync(EVERY_LANE, v, step));
    return v;
}

// Gives every thread the sum of the block, which has whole warps; all must call.
__device__ inline float block_sum(float v)
{
    __shared__ float warps[32];
    v = warp_sum(v);
    __syncthreads();  // an earlier call may still be read
    if (threadIdx.x % 32 == 0)
        warps[threadIdx.x / 32] = v;
    __syncthreads();
    v = threadIdx.x % 32 < blockDim.x / 32 ? warps[threadIdx.x % 32] : 0;
    return warp_sum(v);
}

__device__ inline float block_max(float v)
{
    __shared__ float warps[32];
    v = warp_max(v);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        warps[threadIdx.x / 32] = v;
    __syncthreads();
    v = threadIdx.x % 32 < blockDim.x / 32 ? warps[threadIdx.x % 32] : -INFINITE;
    return warp_max(v);
}

// Returns whether this block is the last of `count` to come here: it then sees what the others wrote before
// (read it with load_fresh), and has set the counter back for the next launch. Source: the CUDA C++
// Programming Guide's sample of __threadfence.
__device__ inline bool last_block(int *counter, int count)
{
    __threadfence();
    __syncthreads();
    bool last = __syncthreads_or(threadIdx.x == 0 && atomicAdd(counter, 1) == count - 1);
    if (last && threadIdx.x == 0)
        *counter = 0;
    __threadfence();
    return last;
}
