// quantized_embedding and block_embedding: out[t] = w[ids[t]], with a table w that is kept in codes.
//
// Moves     T rows of codes with their scales in, T rows of numbers out: of the rest of the table nothing.
// Threads   a block a token; a thread expands eight neighbouring columns. As in embedding.cu, a decode
//           step has one row, and only its latency counts.
// Source    core/ops/quantized/embedding.py.
#define A O  // row8 of weights.cuh reads x in A; a look-up has no x
#include "numbers.cuh"
#include "weights.cuh"

extern "C" __global__ void lookup(const int *ids, MATRIX, O *out, int rows, int width, int group,
                                  int groups)
{
    take_turn();
    matrix m = AS_MATRIX;
    long long row = min(max(ids[blockIdx.x], 0), rows - 1);  // never outside of the table
    O *to = out + (long long)blockIdx.x * width;
    for (int k = 8 * threadIdx.x; k < width; k += 8 * blockDim.x) {
        float numbers[8];
        weights8(m, row, k, numbers);
        for (int i = 0; i < 8 && k + i < width; i++)
            store(&to[k + i], numbers[i]);
    }
}
