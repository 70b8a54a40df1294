// What Hopper's tensor cores need: matrices in shared memory as 128-byte rows whose 16-byte pieces are
// swizzled by the row (piece ^ row % 8, in groups of 8 rows), barriers in shared memory, the copy
// engine, and wgmma. Source: PTX ISA 8.x, "Asynchronous Warpgroup Level Matrix Instructions",
// "Matrix Descriptor Format", "mbarrier", "cp.async.bulk.tensor".
#pragma once
#include "mma.cuh"

struct alignas(64) TensorMap { u64 words[16]; };  // CUtensorMap, made by the driver

// A barrier counts arrivals and bytes; waiting for a phase means its parity.
__device__ __forceinline__ void barrier_init(u64* barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals)
                 : "memory");
}
__device__ __forceinline__ void barrier_arrive(u64* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
__device__ __forceinline__ void barrier_expect(u64* barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
                 "r"(bytes) : "memory");
}
__device__ __forceinline__ void barrier_wait(u64* barrier, int parity) {
    asm volatile("{\n.reg .pred done;\nwaiting:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra waiting;\n}" ::"r"(shared_address(barrier)), "r"(parity) : "memory");
}
// What is written by ordinary stores is seen by the tensor cores and the copy engine.
__device__ __forceinline__ void publish() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
// The threads of a warpgroup wait for each other.
__device__ __forceinline__ void group_sync(int group) {
    asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory");
}
template <int N> __device__ __forceinline__ void more_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> __device__ __forceinline__ void fewer_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

// Copies a box of a matrix or of a tensor of three dimensions to shared memory; its bytes count on the barrier.
__device__ __forceinline__ void copy_box(void* to, const TensorMap* map, int x, int y, int z,
                                         u64* barrier) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(shared_address(to)), "l"(map), "r"(x),
                 "r"(y), "r"(z), "r"(shared_address(barrier)) : "memory");
}

__device__ __forceinline__ void copy_box(void* to, const TensorMap* map, int x, int y, u64* barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%2, %3}], [%4];" ::"r"(shared_address(to)), "l"(map), "r"(x), "r"(y),
                 "r"(shared_address(barrier)) : "memory");
}

// A matrix of 128-byte rows, swizzled. `panel`: bytes from 64 columns to the next 64 of one whose
// columns are contiguous (the second operand of a product that sums over rows).
__device__ __forceinline__ u64 describe(const void* at, int panel = 16) {
    return (u64)(shared_address(at) >> 4 & 0x3FFF) | (u64)(panel >> 4) << 16 | (u64)(1024 >> 4) << 32 |
           1ull << 62;
}

__device__ __forceinline__ void wgmma_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_end() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until at most N groups of products are under way.
template <int N> __device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
// Keeps the compiler from moving registers that a product under way writes.
template <int N> __device__ __forceinline__ void hold(float (&r)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(r[i])::"memory");
}

#if BF16
#define WGMMA(n) "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16"
#else
#define WGMMA(n) "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.f16.f16"
#endif
#define C4(c, i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define C16(c, i) C4(c, i), C4(c, i + 4), C4(c, i + 8), C4(c, i + 12)
#define C32(c, i) C16(c, i), C16(c, i + 16)
#define NAMES8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define NAMES16 NAMES8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define NAMES32 NAMES16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define NAMES64 NAMES32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49," \
                "%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"

#define C64(c, i) C32(c, i), C32(c, i + 32)
#define NAMES128 NAMES64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82," \
                 "%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102," \
                 "%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,"    \
                 "%119,%120,%121,%122,%123,%124,%125,%126,%127"

// c [64, 16 to 256] = a [64, 16] b [columns, 16]^T, or += where `add`; both in shared memory.
__device__ __forceinline__ void wgmma(float (&c)[128], u64 a, u64 b, int add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n" WGMMA("256")
                 " {" NAMES128 "}, %128, %129, p, 1, 1, 0, 0;\n}"
                 : C64(c, 0), C64(c, 64) : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma(float (&c)[64], u64 a, u64 b, int add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n" WGMMA("128")
                 " {" NAMES64 "}, %64, %65, p, 1, 1, 0, 0;\n}"
                 : C64(c, 0) : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma(float (&c)[32], u64 a, u64 b, int add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n" WGMMA("64")
                 " {" NAMES32 "}, %32, %33, p, 1, 1, 0, 0;\n}"
                 : C32(c, 0) : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma(float (&c)[16], u64 a, u64 b, int add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %18, 0;\n" WGMMA("32")
                 " {" NAMES16 "}, %16, %17, p, 1, 1, 0, 0;\n}"
                 : C16(c, 0) : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma(float (&c)[8], u64 a, u64 b, int add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %10, 0;\n" WGMMA("16")
                 " {" NAMES8 "}, %8, %9, p, 1, 1, 0, 0;\n}"
                 : C4(c, 0), C4(c, 4) : "l"(a), "l"(b), "r"(add));
}
// c [64, 64 or 128] += a [64, 16] b [16, columns]; a in registers, as mma's.
__device__ __forceinline__ void wgmma(float (&c)[32], const u32* a, u64 b) {
    asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, 0, 0;\n" WGMMA("64")
                 " {" NAMES32 "}, {%32, %33, %34, %35}, %36, p, 1, 1, 1;\n}"
                 : C32(c, 0) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ __forceinline__ void wgmma(float (&c)[64], const u32* a, u64 b) {
    asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, 0, 0;\n" WGMMA("128")
                 " {" NAMES64 "}, {%64, %65, %66, %67}, %68, p, 1, 1, 1;\n}"
                 : C64(c, 0) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
