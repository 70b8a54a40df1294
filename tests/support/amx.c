/* Runs AMX's instructions on a processor without them: each raises SIGILL, and the handler does in
   plain C what it would have done, as Intel's Architecture Instruction Set Extensions Reference
   defines it. So the machine code that a compiler emitted is run, addresses and operands too.
   Shapes, strides and tile numbers are checked: what a processor would refuse ends the process. */
#define _GNU_SOURCE
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#define ROWS 16
#define BYTES 64

static __thread struct { uint8_t palette, row[8]; uint16_t bytes[8]; } shape;
static __thread uint8_t tiles[8][ROWS][BYTES];
static unsigned long counted; /* products that were emulated */
static int installed;

int emulating(void) { return installed; }
unsigned long emulated(void) { return counted; }

static void refuse(const char *why) {
    ssize_t ignored = write(2, why, strlen(why));
    (void)ignored;
    _exit(132);
}

static float flushed(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }

static float wide(const uint8_t *half) {
    uint16_t bits;
    memcpy(&bits, half, 2);
    uint32_t word = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &word, 4);
    return flushed(x);
}

/* TDPBF16PS: even and odd columns are summed apart, then both are added to what was there. */
static void multiply(int to, int a, int b) {
    int depth = shape.bytes[a] / 4, width = shape.bytes[b] / 4;
    if (shape.row[to] != shape.row[a] || shape.bytes[to] != shape.bytes[b]
        || shape.row[b] != depth || to == a || to == b || a == b)
        refuse("AMX: shapes do not fit\n");
    for (int m = 0; m < shape.row[to]; m++)
        for (int n = 0; n < width; n++) {
            float even = 0, odd = 0, sum;
            for (int k = 0; k < depth; k++) {
                even = flushed(fmaf(wide(&tiles[a][m][4 * k]), wide(&tiles[b][k][4 * n]), even));
                odd = flushed(fmaf(wide(&tiles[a][m][4 * k + 2]), wide(&tiles[b][k][4 * n + 2]),
                                   odd));
            }
            memcpy(&sum, &tiles[to][m][4 * n], 4);
            sum = flushed(flushed(sum) + flushed(even + odd));
            memcpy(&tiles[to][m][4 * n], &sum, 4);
        }
    __atomic_add_fetch(&counted, 1, __ATOMIC_RELAXED);
}

static void configure(const uint8_t *from) {
    memset(tiles, 0, sizeof tiles);
    shape.palette = from[0];
    memcpy(shape.bytes, from + 16, sizeof shape.bytes);
    memcpy(shape.row, from + 48, sizeof shape.row);
    for (int i = 0; i < 8; i++)
        if (shape.row[i] > ROWS || shape.bytes[i] > BYTES)
            refuse("AMX: a tile is too large\n");
    for (int i = 1; i < 64; i++)
        if (from[i] && (i < 16 || (i >= 32 && i < 48) || i >= 56))
            refuse("AMX: a reserved byte is set\n");
    if (shape.palette != 1)
        refuse("AMX: there is no such palette\n");
}

/* The registers in the order in which instructions number them. */
static const int ORDER[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI,
    REG_RDI, REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static void on_illegal(int signal_number, siginfo_t *info, void *context) {
    (void)info;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *code = (const uint8_t *)registers[REG_RIP];
    if (code[0] != 0xc4 || (code[1] & 31) != 2) { /* no VEX prefix of three bytes for 0F 38 */
        signal(signal_number, SIG_DFL);
        return;
    }
    int high_index = !(code[1] & 0x40) << 3, high_base = !(code[1] & 0x20) << 3;
    int other = ~(code[2] >> 3) & 15, prefix = code[2] & 3, opcode = code[3], modrm = code[4];
    int mod = modrm >> 6, tile = modrm >> 3 & 7, rm = modrm & 7, length = 5;
    int64_t address = 0, stride = 0;
    if (mod != 3) {
        int32_t far = 0;
        if (rm == 4) {
            int sib = code[length++], index = (sib >> 3 & 7) | high_index;
            if ((sib & 7) == 5 && mod == 0)
                refuse("AMX: an address without a base\n");
            address = registers[ORDER[(sib & 7) | high_base]];
            if (index != 4)
                stride = registers[ORDER[index]] << (sib >> 6);
        } else if (!(mod == 0 && rm == 5))
            address = registers[ORDER[rm | high_base]];
        if (mod == 1)
            far = (int8_t)code[length++];
        else if (mod == 2 || (mod == 0 && rm == 5)) {
            memcpy(&far, code + length, 4);
            length += 4;
        }
        if (mod == 0 && rm == 5)
            address = registers[REG_RIP] + length;
        address += far;
    }
    if (!(opcode == 0x49 && prefix == 0) && !shape.palette)
        refuse("AMX: tiles have no shapes\n");
    if (opcode == 0x49 && prefix == 0 && mod != 3)
        configure((const uint8_t *)address); /* LDTILECFG */
    else if (opcode == 0x49 && prefix == 0)
        memset(&shape, 0, sizeof shape); /* TILERELEASE */
    else if (opcode == 0x49 && prefix == 3 && mod == 3)
        memset(tiles[tile], 0, sizeof tiles[tile]); /* TILEZERO */
    else if (opcode == 0x4b && (prefix == 3 || prefix == 2)) { /* TILELOADD, TILESTORED */
        if (prefix == 3)
            memset(tiles[tile], 0, sizeof tiles[tile]);
        for (int r = 0; r < shape.row[tile]; r++) {
            uint8_t *memory = (uint8_t *)(address + r * stride);
            if (prefix == 3)
                memcpy(tiles[tile][r], memory, shape.bytes[tile]);
            else
                memcpy(memory, tiles[tile][r], shape.bytes[tile]);
        }
    } else if (opcode == 0x5c && prefix == 2 && mod == 3)
        multiply(tile, rm, other); /* TDPBF16PS */
    else {
        signal(signal_number, SIG_DFL);
        return;
    }
    registers[REG_RIP] += length;
}

void emulate(void) {
    struct sigaction action = {.sa_sigaction = on_illegal, .sa_flags = SA_SIGINFO};
    installed = !sigaction(SIGILL, &action, NULL);
}
