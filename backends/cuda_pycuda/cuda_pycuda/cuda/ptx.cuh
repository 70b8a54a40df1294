// The few instructions that CUDA C has no name for without NVIDIA's headers; nothing else of this
// backend holds assembly. Sources: the PTX ISA, sections cvt, ex2, ld, cp.async, ldmatrix, mma and
// griddepcontrol.
// tests/support/cuda_on_cpu has a stand-in for this one file.

typedef struct { unsigned short bits; } f16;
typedef struct { unsigned short bits; } bf16;
typedef signed char i8;
typedef unsigned char u8;

__device__ inline float to_float(f16 v)
{
    float r;
    asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(v.bits));
    return r;
}

__device__ inline void store(f16 *at, float v)
{
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(at->bits) : "f"(v));
}

__device__ inline void store(bf16 *at, float v)
{
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(at->bits) : "f"(v));
}

// 2^v within 2 ULP; 0 for what is below the least normal number.
__device__ inline float power_of_two(float v)
{
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
    return r;
}

// In a captured step the blocks of a kernel may start while the kernel before it still runs (programmatic
// dependent launch, from sm_90 on). Before wait_for_previous() a kernel writes nothing that others read,
// and reads nothing that they write: of its inputs weights, and positions, slots, lengths and tables,
// which stay as they are until the end of the step (advance.cu). Every kernel waits, so that the end of
// one is the end of all before it.
__device__ inline void let_next_start(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ inline void wait_for_previous(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ inline void take_turn(void)
{
    let_next_start();
    wait_for_previous();
}

// 16 aligned bytes that are read once: they need not push anything else out of the L1 cache.
__device__ inline uint4 load_once(const void *at)
{
    uint4 r;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w) : "l"(at));
    return r;
}

// Copies from global to shared memory that run while the thread goes on. Copies started since the last
// commit() are a group; WAIT_FOR_ALL_BUT(n) waits for all but the last n groups of this thread. (Plain
// loads into registers would do, but ptxas moves each next to its first use, and few are in flight.)
__device__ inline void copy16(void *shared, const void *global)  // past the L1 cache
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
                 :: "r"((unsigned)__cvta_generic_to_shared(shared)), "l"(global) : "memory");
}

__device__ inline void copy16_if(bool there, void *shared, const void *global)  // zeros where not
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"((unsigned)__cvta_generic_to_shared(shared)), "l"(global), "r"(there ? 16 : 0)
                 : "memory");
}

__device__ inline void copy4(void *shared, const void *global)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;"
                 :: "r"((unsigned)__cvta_generic_to_shared(shared)), "l"(global) : "memory");
}

__device__ inline void commit(void) { asm volatile("cp.async.commit_group;" ::: "memory"); }

#define WAIT_FOR_ALL_BUT(n) asm volatile("cp.async.wait_group %0;" :: "n"(n) : "memory")

// Reads what other blocks of this launch wrote: past the L1 cache, which does not see their writes.
__device__ inline float load_fresh(const float *at) { return *(const volatile float *)at; }
__device__ inline int load_fresh(const int *at) { return *(const volatile int *)at; }

// d += a b for a tile a [16, 16] and a tile b [16, 8], by the whole warp. With g = lane / 4 and
// c = 2 (lane % 4), a lane holds, two to a register, columns c and c + 1 of
//     a: [g, c] [g + 8, c] [g, c + 8] [g + 8, c + 8]      b (rows c, c + 1): [c, g] [c + 8, g]
//     d: [g, c] [g, c + 1] [g + 8, c] [g + 8, c + 1], one float to a register
__device__ inline void mma(float d[4], const unsigned a[4], unsigned b0, unsigned b1, f16)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline void mma(float d[4], const unsigned a[4], unsigned b0, unsigned b1, bf16)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four tiles of 8 x 8 16-bit numbers out of shared memory, by the whole warp: lane l gives the address of row
// l % 8, 16 bytes, of tile l / 8. A lane gets of each tile, in one register, columns c and c + 1 of row g,
// or, by load_turned, rows c and c + 1 of column g.
#define LOAD_TILES(which, out, row)                                                             \
    asm volatile("ldmatrix.sync.aligned.m8n8.x4" which ".shared.b16 {%0, %1, %2, %3}, [%4];"    \
                 : "=r"((out)[0]), "=r"((out)[1]), "=r"((out)[2]), "=r"((out)[3])               \
                 : "r"((unsigned)__cvta_generic_to_shared(row)) : "memory")

__device__ inline void load_tiles(unsigned out[4], const void *row) { LOAD_TILES("", out, row); }
__device__ inline void load_turned(unsigned out[4], const void *row) { LOAD_TILES(".trans", out, row); }
