// silu(x) = x / (1 + exp(-x)). For a large negative x, exp is infinite and the quotient 0, as it
// should be.
__device__ inline float silu(float x) { return x / (1 + expf(-x)); }
