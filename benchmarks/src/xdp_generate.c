/* xdp_generate INTERFACE FLOWS SHARE SECONDS: UDP datagrams of 60 bytes out of an interface, from inside the kernel (XDP live frames), several
 * times as many as sockets can send. SHARE of those that could be sent are, chosen by chance, so that the rest is waited out evenly: 1 is as fast
 * as it goes. The interface's peer must have NAPI: an XDP program, or "gro on". The interface's own counters say how many it were. Prints one JSON line.
 *
 * BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES runs a program over pages that are real frames; what it redirects is sent. The program gives
 * each a source port of its own: FLOWS (a power of two, at most 65,536) different ones.
 */
#include <errno.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SLICE (1 << 16) /* frames a call; each call costs a grace period of RCU */
#define BATCH 64
#define INSN(c, d, s, o, i) ((struct bpf_insn){.code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i)})

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int load(int interface, uint32_t flows, double share)
{
    struct bpf_insn code[] = {
        INSN(0xbf, 6, 1, 0, 0),                          /* r6 = ctx */
        INSN(0x85, 0, 0, 0, 7), INSN(0x77, 0, 0, 0, 1),  /* r0 = bpf_get_prandom_u32() >> 1 */
        INSN(0x25, 0, 0, 12, (int32_t)(share * 2147483647.0)), /* if r0 > share goto drop */
        INSN(0x85, 0, 0, 0, 7),                          /* r0 = bpf_get_prandom_u32() */
        INSN(0x57, 0, 0, 0, (int32_t)(flows - 1)),       /* r0 &= flows - 1 */
        INSN(0x61, 2, 6, 0, 0),                          /* r2 = ctx->data */
        INSN(0x61, 3, 6, 4, 0),                          /* r3 = ctx->data_end */
        INSN(0xbf, 4, 2, 0, 0), INSN(0x07, 4, 0, 0, 42), /* r4 = r2 + 42 */
        INSN(0x2d, 4, 3, 1, 0),                          /* if r4 > r3 goto redirect */
        INSN(0x6b, 2, 0, 34, 0),                         /* *(u16 *)(r2 + 34) = r0 */
        INSN(0xb7, 1, 0, 0, interface), INSN(0xb7, 2, 0, 0, 0), INSN(0x85, 0, 0, 0, 23), /* return bpf_redirect(interface, 0) */
        INSN(0x95, 0, 0, 0, 0),
        INSN(0xb7, 0, 0, 0, 1), INSN(0x95, 0, 0, 0, 0),  /* drop: return XDP_DROP */
    };
    union bpf_attr a = {.prog_type = BPF_PROG_TYPE_XDP, .insn_cnt = sizeof code / sizeof *code, .insns = (uintptr_t)code, .license = (uintptr_t)"GPL"};
    return (int)syscall(SYS_bpf, BPF_PROG_LOAD, &a, sizeof a);
}

int main(int argc, char **argv)
{
    if (argc != 5) return fprintf(stderr, "usage: xdp_generate INTERFACE FLOWS SHARE SECONDS\n"), 2;
    int interface = (int)if_nametoindex(argv[1]);
    uint32_t flows = (uint32_t)atoi(argv[2]);
    double share = atof(argv[3]), seconds = atof(argv[4]);
    if (!interface || !flows || flows & (flows - 1) || flows > 65536) return fprintf(stderr, "xdp_generate: no such interface, or flows is no power of two\n"), 2;
    int program = load(interface, flows, share);
    if (program < 0) return fprintf(stderr, "xdp_generate: the program cannot be loaded: %s\n", strerror(errno)), 1;
    uint8_t frame[60] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00, 0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0x26, 0xb7, 10, 0, 0, 1, 10, 0, 0, 2, 0, 0, 0x13, 0x88, 0, 26};
    uint32_t sum = 0;
    frame[24] = frame[25] = 0;
    for (int i = 14; i < 34; i += 2) sum += (uint32_t)frame[i] << 8 | frame[i + 1];
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    frame[24] = (uint8_t)(~sum >> 8), frame[25] = (uint8_t)~sum;
    struct xdp_md context = {.data_end = sizeof frame};
    union bpf_attr a = {.test = {.prog_fd = (uint32_t)program, .data_in = (uintptr_t)frame, .data_size_in = sizeof frame, .ctx_in = (uintptr_t)&context,
                                 .ctx_size_in = sizeof context, .repeat = SLICE, .flags = 2 /* BPF_F_TEST_XDP_LIVE_FRAMES */, .batch_size = BATCH}};
    double begin = now(), at = begin;
    uint64_t made = 0;
    while ((at = now()) - begin < seconds) {
        if (syscall(SYS_bpf, BPF_PROG_TEST_RUN, &a, sizeof a) < 0) return fprintf(stderr, "xdp_generate: live frames cannot be sent: %s\n", strerror(errno)), 1;
        made += a.test.repeat;
    }
    printf("{\"made\": %llu, \"seconds\": %.6f}\n", (unsigned long long)made, at - begin);
    return 0;
}
