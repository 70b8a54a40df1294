// Weights in blocks (core/ops/quantized/block_linear.py), for what includes it after numbers.cuh:
// w = step * scale * code - min_step * minimum. Codes have BITS = 4, 5 or 6 bits, the upper ones apart; a
// block is BLOCK columns, a group GROUP. SCALES and ZEROS: whether there are scales, and minimums. Rows are
// whole blocks, so that an element's number in the whole matrix tells its block, group and bytes.

#define UPPER (BITS - 4)
#define MIDDLE (ZEROS ? 0 : 1 << (BITS - 1))  // the code of 0

typedef struct {
    const u8 *codes, *high;
    const f16 *steps;
    const i8 *scales;
    const f16 *min_steps;
    const i8 *minimums;
} blocks;

__device__ inline float scale_at(blocks m, long long at)
{
    return to_float(m.steps[at / BLOCK]) * (SCALES ? m.scales[at / GROUP] : 1);
}

__device__ inline float minimum_at(blocks m, long long at)
{
    return ZEROS ? to_float(m.min_steps[at / BLOCK]) * (SCALES ? m.minimums[at / GROUP] : 1) : 0;
}

// Eight codes: a word of nibbles and, from the lowest of `upper` on, the bits above them.
__device__ inline void codes8(unsigned word, unsigned upper, float *out)
{
    #pragma unroll
    for (int i = 0; i < 8; i++) {
        unsigned code = word >> 4 * i & 15;
        if (UPPER)
            code |= (upper >> UPPER * i & ((1 << UPPER) - 1)) << 4;
        out[i] = (float)code - MIDDLE;
    }
}

// Weights at .. at + 7, of one group.
__device__ inline void block8(blocks m, long long at, float *out)
{
    unsigned upper = UPPER == 0 ? 0 : UPPER == 1 ? m.high[at / 8]
        : *(const unsigned short *)(m.high + at / 4);
    float scale = scale_at(m, at), least = minimum_at(m, at);
    codes8(*(const unsigned *)(m.codes + at / 2), upper, out);
    #pragma unroll
    for (int i = 0; i < 8; i++)
        out[i] = scale * out[i] - least;
}
