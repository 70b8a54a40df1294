// A GPU's execution model on one CPU thread. The threads of a block are fibers that run in turn until
// each reaches a barrier; blocks run one after the other. Shared memory is static and filled with NaN
// before each block.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define __global__
#define __device__ static
#define __shared__ static __attribute__((section("block_shared")))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)

struct uint2 { alignas(8) unsigned x; unsigned y; };
struct uint4 { alignas(16) unsigned x; unsigned y, z, w; };
struct dim { unsigned x, y, z; };
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

static dim threadIdx, blockIdx, blockDim, gridDim;

// Fibers. A switch keeps the registers that the x86-64 calling convention asks for.
static void fail(const char *what)
{
    fprintf(stderr, "cuda_on_cpu: %s at block (%u, %u, %u), thread %u\n", what, blockIdx.x, blockIdx.y,
            blockIdx.z, threadIdx.x);
    abort();
}

extern "C" void switch_stack(void **from, void *to);
#if defined(__x86_64__)
asm(R"(
.pushsection .text
.hidden switch_stack
.globl switch_stack
switch_stack:
    pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
    ret
.popsection
)");
#elif defined(__aarch64__)
asm(R"(
.pushsection .text
.hidden switch_stack
.globl switch_stack
switch_stack:
    sub sp, sp, #160
    stp x19, x20, [sp]; stp x21, x22, [sp, #16]; stp x23, x24, [sp, #32]; stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]; stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]; stp d10, d11, [sp, #112]; stp d12, d13, [sp, #128]; stp d14, d15, [sp, #144]
    mov x9, sp; str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp]; ldp x21, x22, [sp, #16]; ldp x23, x24, [sp, #32]; ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]; ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]; ldp d10, d11, [sp, #112]; ldp d12, d13, [sp, #128]; ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.popsection
)");
#else
#error "cuda_on_cpu knows x86-64 and AArch64"
#endif

struct Barrier { int arrived, generation; };
struct Copy { void *to; const void *from; int bytes, group; };  // an asynchronous one, not yet done
struct Fiber {
    void *stack;
    bool done, waited;  // the second: it has called wait_for_previous
    Barrier *at;      // where it waits, for a generation to pass
    int generation, exchanges, group;
    Copy copies[256];
    int first_copy, copy_count;
};
struct Warp { Barrier barrier; unsigned long long slots[2][32][4]; };

enum { MOST = 1024, STACK = 1 << 16 };
static Fiber *fibers;
static Warp warps[MOST / 32];
static Barrier block;
static void *scheduler;
static int threads;
static void (*body)(void);
// the linker's names for the section, which the first variable makes sure of
__attribute__((used)) static char some_shared[16] __attribute__((section("block_shared")));
extern "C" __attribute__((visibility("hidden"))) char __start_block_shared[], __stop_block_shared[];

static Fiber &self() { return fibers[threadIdx.x]; }
static void leave() { switch_stack(&self().stack, scheduler); }

static void enter()
{
    body();
    if (!self().waited)
        fail("a thread has ended without waiting for the kernel before");
    self().done = true;
    leave();
}

static void wait(Barrier &barrier, int expected)
{
    if (++barrier.arrived == expected) {
        barrier.arrived = 0;
        barrier.generation++;
        return;
    }
    self().at = &barrier;
    self().generation = barrier.generation;
    leave();
}

static void run_block()
{
    memset(__start_block_shared, 0xff, __stop_block_shared - __start_block_shared);
    memset(warps, 0, sizeof warps);
    block = {0, 0};
    for (int t = 0; t < threads; t++) {
        Fiber &f = fibers[t];
        char *stack = (char *)f.stack;
        f.done = f.waited = false;
        f.at = 0;
        f.exchanges = f.group = f.first_copy = f.copy_count = 0;
        stack = (char *)(fibers + MOST) + (size_t)(t + 1) * STACK;
#if defined(__x86_64__)
        void **top = (void **)stack - 2;  // after the return into enter, the stack is as after a call
        *top = (void *)enter;
        f.stack = top - 6;
#else
        f.stack = stack - 160;
        ((void **)f.stack)[11] = (void *)enter;  // x30
#endif
    }
    for (int live = threads; live;) {
        bool moved = false;
        for (int t = 0; t < threads; t++) {
            Fiber &f = fibers[t];
            if (f.done || (f.at && f.at->generation == f.generation))
                continue;
            f.at = 0;
            threadIdx.x = t;
            switch_stack(&scheduler, f.stack);
            live -= f.done;
            moved = true;
        }
        if (!moved)
            fail("some threads wait at a barrier that others never reach");
    }
}

static void run_grid(const unsigned *grid, unsigned block_size, void (*kernel)(void))
{
    if (!fibers)
        fibers = (Fiber *)mmap(0, MOST * (sizeof(Fiber) + STACK), PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    body = kernel;
    threads = block_size;
    if (threads % 32 || threads > MOST)
        fail("a block must have whole warps and at most 1024 threads");
    blockDim = {block_size, 1, 1};
    gridDim = {grid[0], grid[1], grid[2]};
    threadIdx = {0, 0, 0};
    for (blockIdx.z = 0; blockIdx.z < grid[2]; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < grid[1]; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < grid[0]; blockIdx.x++)
                run_block();
}

// Calls a kernel with arguments given by their addresses, which is how a driver gets them.
static void **given;
template <int...> struct Numbers {};
template <int N, int... I> struct Count : Count<N - 1, N - 1, I...> {};
template <int... I> struct Count<0, I...> { typedef Numbers<I...> type; };
template <auto K, class... P, int... I> void call(void (*)(P...), Numbers<I...>)
{
    K(*(P *)given[I]...);
}
template <auto K, class... P> void call_all(void (*kernel)(P...))
{
    call<K>(kernel, typename Count<sizeof...(P)>::type());
}
#define ENTRY(name)                                                                            \
    extern "C" void launch_##name(const unsigned *grid, unsigned block_size, void **arguments) \
    {                                                                                          \
        given = arguments;                                                                     \
        run_grid(grid, block_size, [] { call_all<name>(name); });                              \
    }

// Barriers and exchanges within a warp.
static void __syncthreads() { wait(block, threads); }
static int __syncthreads_or(int predicate)
{
    static int any[2];  // in turns: a thread that is ahead does not change what others still read
    int turn = block.generation % 2;
    any[turn] |= predicate != 0;
    __syncthreads();
    any[turn ^ 1] = 0;
    return any[turn];
}
static void __threadfence() {}
static Warp &warp_of_self() { return warps[threadIdx.x / 32]; }
static void __syncwarp(unsigned = ~0u) { wait(warp_of_self().barrier, 32); }

// Every lane puts a value into its slot; after the barrier each may read any. Slots take turns, so
// that a lane which is ahead does not overwrite what another still reads.
template <class T> static unsigned long long (*exchange(unsigned mask, const T &value))[4]
{
    if (mask != ~0u)
        fail("an exchange of only some lanes");
    Warp &w = warp_of_self();
    auto slots = w.slots[self().exchanges++ % 2];
    static_assert(sizeof value <= sizeof *slots, "");
    memcpy(slots[threadIdx.x % 32], &value, sizeof value);
    wait(w.barrier, 32);
    return slots;
}

template <class T> static T from_lane(unsigned mask, T value, int lane)
{
    T found;
    memcpy(&found, exchange(mask, value)[lane & 31], sizeof found);
    return found;
}

template <class T> static T __shfl_sync(unsigned m, T v, int lane) { return from_lane(m, v, lane); }
template <class T> static T __shfl_xor_sync(unsigned m, T v, int step)
{
    return from_lane(m, v, threadIdx.x % 32 ^ step);
}
template <class T> static T __shfl_up_sync(unsigned m, T v, int step)
{
    int lane = threadIdx.x % 32;
    return from_lane(m, v, lane < step ? lane : lane - step);
}
static unsigned __ballot_sync(unsigned mask, int predicate)
{
    auto slots = exchange(mask, predicate);
    unsigned found = 0;
    for (int lane = 0; lane < 32; lane++)
        found |= (unsigned)((int)slots[lane][0] != 0) << lane;
    return found;
}

template <class T, class V> static T atomicAdd(T *at, V v) { T old = *at; *at += v; return old; }
static int atomicMin(int *at, int v) { int old = *at; *at = v < old ? v : old; return old; }

template <class T> static T min(T a, T b) { return b < a ? b : a; }
template <class T> static T max(T a, T b) { return a < b ? b : a; }
static float __uint_as_float(unsigned v) { float f; memcpy(&f, &v, 4); return f; }
static float __int_as_float(int v) { float f; memcpy(&f, &v, 4); return f; }
static unsigned __byte_perm(unsigned a, unsigned b, unsigned selector)
{
    unsigned long long bytes = a | (unsigned long long)b << 32;
    unsigned result = 0;
    for (int i = 0; i < 4; i++)
        result |= (unsigned)(bytes >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
    return result;
}
static unsigned __float_as_uint(float v) { unsigned u; memcpy(&u, &v, 4); return u; }
static unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static float __fmul_rn(float a, float b) { return a * b; }
static int __popc(unsigned v) { return __builtin_popcount(v); }
static int __ffs(unsigned v) { return __builtin_ffs(v); }
