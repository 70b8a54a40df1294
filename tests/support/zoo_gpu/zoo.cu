// A rms_norm over rows of float32, one block a row, with the fault that FAULT names.
#define THREADS 128

enum { RIGHT, BEYOND, FAR_BEYOND, BEFORE, INPUT, SHARED_RACE, GLOBAL_RACE, ILLEGAL, TRAP, ENDLESS };

extern "C" __global__ void bad_rms_norm(float *x, const float *weight, float *out, int rows,
                                        int width, float eps)
{
    __shared__ float sums[THREADS];
    int thread = threadIdx.x;
    long long start = (long long)blockIdx.x * width, end = (long long)rows * width;
#ifndef __CUDA_ARCH__  // tests/support/cuda_on_cpu
    self().waited = true;
#elif __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
    float sum = 0;
    for (int i = thread; i < width; i += THREADS)
        sum += x[start + i] * x[start + i];
    sums[thread] = sum;
#if FAULT != 5  // SHARED_RACE
    __syncthreads();
#endif
    float total = 0;
    for (int i = 0; i < THREADS; i++)
        total += sums[i];
    float scale = 1 / sqrtf(total / width + eps);
    for (int i = thread; i < width; i += THREADS)
        out[start + i] = x[start + i] * scale * weight[i];
    __syncthreads();
    bool last = blockIdx.x == rows - 1 && thread == 0;
    if (FAULT == BEYOND && last)
        out[end] = 1;
    if (FAULT == FAR_BEYOND && last)
        for (int i = 0; i < 16; i++)
            out[end + 1024 + i] = 1;
    if (FAULT == BEFORE && last)
        out[-1] = 1;
    if (FAULT == INPUT && last)
        x[end - 1] += 1;
    if (FAULT == GLOBAL_RACE && thread == 0)  // each block writes the same element
        out[end - 1] = scale;
    if (FAULT == ILLEGAL && last)
        *(volatile float *)64 = 1;
#if FAULT == 8  // TRAP
    asm volatile("trap;");
#endif
#if FAULT == 9  // ENDLESS; what the clock says no compiler knows
    while (last && clock64() != 0)
        ;
#endif
}
