// One pair of rope: (a, b) turned by the angle position * inv_freq, which is rounded to float32 once,
// as the op's definition says. sincosf, not the fast one: a position of 100,000 is an angle as large.
__device__ inline void rotate(float *a, float *b, int position, float inv_freq)
{
    float sine, cosine, first = *a;
    sincosf((float)position * inv_freq, &sine, &cosine);
    *a = first * cosine - *b * sine;
    *b = *b * cosine + first * sine;
}

// Where pair i of a head of `size` numbers has its members.
__device__ inline void pair_at(int i, int size, int interleaved, int *first, int *second)
{
    *first = interleaved ? 2 * i : i;
    *second = interleaved ? 2 * i + 1 : i + size / 2;
}
