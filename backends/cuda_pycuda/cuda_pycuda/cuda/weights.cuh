// Eight neighbours of a row of weights as floats, plain (BITS 0) or codes (BITS 8 or 4), for kernels
// that read a few at a time. ALIGNED: rows are whole runs of eight, and a run is in one group. BLOCKED:
// codes in blocks instead (blocks.cuh). MATRIX are a kernel's parameters, AS_MATRIX what it makes of them.

#if BITS
typedef u8 stored;
#else
typedef W stored;
#endif

#if BLOCKED
#include "blocks.cuh"

#define MATRIX const u8 *w, const u8 *high, const f16 *steps, const i8 *scales, const f16 *min_steps, \
    const i8 *minimums
#define AS_MATRIX {{w, high, steps, scales, min_steps, minimums}, width}

typedef struct { blocks data; int width; } matrix;

// Weights k .. k + 7 of row n, which are in one group.
__device__ inline void weights8(matrix m, long long n, int k, float *out)
{
    block8(m.data, n * m.width + k, out);
}
#else
#define MATRIX const stored *w, const float *scales, const float *zeros
#define AS_MATRIX {w, scales, zeros, width, group, groups}

typedef struct {
    const stored *data;      // [N, K], or the bytes of codes
    const float *scales, *zeros;  // [N, groups]; zeros may be null
    int width, group, groups;
} matrix;

// One weight. 4-bit codes are two to a byte, the first in the low nibble.
__device__ inline float weight_at(matrix m, long long n, int k)
{
#if BITS
    long long g = n * m.groups + k / m.group;
    float code = BITS == 8 ? (float)(i8)m.data[n * m.width + k]
        : (float)(m.data[n * ((m.width + 1) / 2) + k / 2] >> 4 * (k % 2) & 15);
    return m.scales[g] * (code - (m.zeros ? m.zeros[g] : BITS == 8 ? 0 : 8));
#else
    return to_float(m.data[n * m.width + k]);
#endif
}

// Weights k .. k + 7 of row n; 0 beyond the row.
__device__ inline void weights8(matrix m, long long n, int k, float *out)
{
#if ALIGNED && BITS == 0
    load8(m.data + n * m.width + k, out);
#elif ALIGNED
    long long g = n * m.groups + k / m.group;
    float scale = m.scales[g], zero = m.zeros ? m.zeros[g] : BITS == 8 ? 0 : 8;
    if (BITS == 8) {
        load8((const i8 *)m.data + n * m.width + k, out);
    } else {
        unsigned word = *(const unsigned *)(m.data + n * (m.width / 2) + k / 2);
        for (int i = 0; i < 8; i++)
            out[i] = (float)(word >> 4 * i & 15);
    }
    for (int i = 0; i < 8; i++)
        out[i] = scale * (out[i] - zero);
#else
    for (int i = 0; i < 8; i++)
        out[i] = k + i < m.width ? weight_at(m, n, k + i) : 0;
#endif
}
#endif

// Numbers k .. k + 7 of a row of x; 0 beyond the row.
__device__ inline void row8(const A *x, int k, int width, float *out)
{
#if ALIGNED
    load8(x + k, out);
#else
    for (int i = 0; i < 8; i++)
        out[i] = k + i < width ? to_float(x[k + i]) : 0;
#endif
}
