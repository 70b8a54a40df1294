// One pair of rope: (a, b) rotated by the angle position * inv_freq, which is rounded to float32 once,
// as the op's definition says. sincosf, not the fast one: a position of 100,000 is an angle as large.
typedef struct { float sine, cosine; } rotation;

__device__ inline rotation rotation_of(int position, float inv_freq)
{
    rotation by;
    sincosf((float)position * inv_freq, &by.sine, &by.cosine);
    return by;
}

__device__ inline void rotate(float *a, float *b, rotation by)
{
    float first = *a;
    *a = first * by.cosine - *b * by.sine;
    *b = *b * by.cosine + first * by.sine;
}

// Where pair i of a head of `size` numbers has its members.
__device__ inline void pair_at(int i, int size, int interleaved, int *first, int *second)
{
    *first = interleaved ? 2 * i : i;
    *second = interleaved ? 2 * i + 1 : i + size / 2;
}
