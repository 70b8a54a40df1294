// What cuda_pycuda/cuda/ptx.cuh has, in C++ over machine.h.

struct f16 { unsigned short bits; };
struct bf16 { unsigned short bits; };
typedef signed char i8;
typedef unsigned char u8;

static float to_float(f16 v)
{
    _Float16 h;
    memcpy(&h, &v, 2);
    return h;
}

static float bf16_to_float(unsigned short bits) { return __uint_as_float((unsigned)bits << 16); }

static void store(f16 *at, float v)
{
    _Float16 h = (_Float16)v;
    memcpy(at, &h, 2);
}

static void store(bf16 *at, float v)  // to nearest, ties to even
{
    unsigned u = __float_as_uint(v);
    at->bits = v != v ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

static float power_of_two(float v) { return exp2f(v); }

static void let_next_start() {}  // here kernels run one after the other
static void wait_for_previous() { self().waited = true; }
static void take_turn() { wait_for_previous(); }

static uint4 load_once(const void *at) { return *(const uint4 *)at; }
static float load_fresh(const float *at) { return *at; }
static int load_fresh(const int *at) { return *at; }

// A copy is done when it is waited for, and not before; until then its target holds NaN.
static void start_copy(void *to, const void *from, int bytes)
{
    Fiber &f = self();
    if ((uintptr_t)to % bytes || (uintptr_t)from % bytes)
        fail("a misaligned copy");
    if (f.copy_count - f.first_copy == 256)
        fail("over 256 copies on their way");
    memset(to, 0xff, bytes);
    f.copies[f.copy_count++ % 256] = {to, from, bytes, f.group};
}

static void copy16(void *to, const void *from) { start_copy(to, from, 16); }
static void copy16_if(bool there, void *to, const void *from)
{
    alignas(16) static const char zeros[16] = {};
    start_copy(to, there ? from : zeros, 16);
}

static void copy4(void *to, const void *from) { start_copy(to, from, 4); }
static void commit() { self().group++; }

static void WAIT_FOR_ALL_BUT(int groups)
{
    Fiber &f = self();
    for (; f.first_copy < f.copy_count; f.first_copy++) {
        Copy &c = f.copies[f.first_copy % 256];
        if (c.group >= f.group - groups)
            return;
        memcpy(c.to, c.from, c.bytes);
    }
}

static float number(unsigned short bits, f16) { f16 v = {bits}; return to_float(v); }
static float number(unsigned short bits, bf16) { return bf16_to_float(bits); }

// Lane 4 r + c / 2 holds columns c, c + 1 of row r: see the map in the file this stands in for.
template <class T> static void mma(float d[4], const unsigned a[4], unsigned b0, unsigned b1, T kind)
{
    struct Operands { unsigned a[4], b[2]; } mine = {{a[0], a[1], a[2], a[3]}, {b0, b1}};
    auto slots = exchange(~0u, mine);
    int lane = threadIdx.x % 32, g = lane / 4, c = lane % 4 * 2;
    for (int k = 0; k < 16; k++) {
        const Operands *row = (const Operands *)slots[4 * g + k % 8 / 2];
        for (int j = 0; j < 2; j++) {
            const Operands *column = (const Operands *)slots[4 * (c + j) + k % 8 / 2];
            float b = number(column->b[k / 8] >> k % 2 * 16, kind);
            for (int half = 0; half < 2; half++)
                d[2 * half + j] += number(row->a[half + k / 8 * 2] >> k % 2 * 16, kind) * b;
        }
    }
}

// A lane's part of four tiles, each eight rows whose addresses eight lanes give.
static void load_tiles(unsigned out[4], const void *row)
{
    auto slots = exchange(~0u, row);
    for (int i = 0; i < 4; i++)
        out[i] = ((const unsigned *)slots[8 * i + threadIdx.x % 32 / 4][0])[threadIdx.x % 4];
}

static void load_turned(unsigned out[4], const void *row)
{
    auto slots = exchange(~0u, row);
    int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4 * 2;
    for (int i = 0; i < 4; i++) {
        const unsigned short *first = (const unsigned short *)slots[8 * i + c][0];
        const unsigned short *second = (const unsigned short *)slots[8 * i + c + 1][0];
        out[i] = first[g] | (unsigned)second[g] << 16;
    }
}
