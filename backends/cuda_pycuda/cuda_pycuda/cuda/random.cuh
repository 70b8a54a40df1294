// One number in [0, 1) from a seed and a counter: the first word of Philox4x32-10. Source: Salmon et
// al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; core/ops/sampling.py.
__device__ inline float uniform(unsigned seed0, unsigned seed1, unsigned counter)
{
    unsigned x0 = counter, x1 = 0, x2 = 0, x3 = 0;
    for (int i = 0; i < 10; i++) {
        unsigned low0 = 0xD2511F53u * x0, high0 = __umulhi(0xD2511F53u, x0);
        unsigned low1 = 0xCD9E8D57u * x2, high1 = __umulhi(0xCD9E8D57u, x2);
        x0 = high1 ^ x1 ^ seed0;
        x1 = low1;
        x2 = high0 ^ x3 ^ seed1;
        x3 = low0;
        seed0 += 0x9E3779B9u;
        seed1 += 0xBB67AE85u;
    }
    return (float)(x0 >> 8) * 5.9604644775390625e-8f;  // 2^-24
}
