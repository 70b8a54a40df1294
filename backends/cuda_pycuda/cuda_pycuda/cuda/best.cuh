// The largest of many numbers and its index, the first of equal ones.

typedef struct { unsigned key; int index; } best;

// A float as an unsigned number in the same order, with NaN above all and -0 equal to 0.
__device__ inline unsigned ordered(float v)
{
    if (v != v)
        return 0xffffffffu;
    unsigned bits = __float_as_uint(v == 0 ? 0.f : v);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ inline best nothing(void)
{
    best b = {0, 0x7fffffff};
    return b;
}

__device__ inline best candidate(float v, int index)
{
    best b = {ordered(v), index};
    return b;
}

__device__ inline best better(best a, best b)
{
    return b.key > a.key || (b.key == a.key && b.index < a.index) ? b : a;
}

__device__ inline best warp_best(best b)
{
    for (int step = 16; step > 0; step /= 2) {
        best other;
        other.key = __shfl_xor_sync(0xffffffffu, b.key, step);
        other.index = __shfl_xor_sync(0xffffffffu, b.index, step);
        b = better(b, other);
    }
    return b;
}

// Gives every thread the best of the block.
__device__ inline best block_best(best b)
{
    __shared__ best warps[32];
    b = warp_best(b);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        warps[threadIdx.x / 32] = b;
    __syncthreads();
    return warp_best(threadIdx.x % 32 < blockDim.x / 32 ? warps[threadIdx.x % 32] : nothing());
}
