/* xdp_generate INTERFACE NETWORK FLOWS SHARE SECONDS: TCP segments of 60 bytes out of an interface, from inside the kernel (XDP live frames), several
 * times as many as sockets can send: 6 bytes of payload each, in order, on FLOWS connections (a power of two, at most 32,768) chosen by chance,
 * from 10.NETWORK.0.1 to 10.NETWORK.0.2. SHARE of those that could be sent are, so that the rest is waited out evenly: 1 is as fast as it goes. The
 * interface's peer must have NAPI: an XDP program, or "gro on". The interface's own counters say how many it were. Prints one JSON line.
 *
 * BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES runs a program over pages that are real frames; what it redirects is sent. The program writes
 * the source port and the sequence number, and their complements as payload: the checksum stays as it is.
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

#define SLICE (1 << 18) /* frames a call; each call costs a grace period of RCU */
#define BATCH 64
#define ETH 14
#define TCP (ETH + 20)
#define PAYLOAD (TCP + 20)
#define INSN(c, d, s, o, i) ((struct bpf_insn){.code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i)})

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int bpf(int command, union bpf_attr *a) { return (int)syscall(SYS_bpf, command, a, sizeof *a); }

static int load(int interface, int sequences, uint32_t flows, double share)
{
    struct bpf_insn code[] = {
        INSN(0xbf, 6, 1, 0, 0),                                /* r6 = ctx */
        INSN(0x85, 0, 0, 0, 7), INSN(0x77, 0, 0, 0, 1),        /* r0 = bpf_get_prandom_u32() >> 1 */
        INSN(0x25, 0, 0, 31, (int32_t)(share * 2147483647.0)), /* if r0 > share goto drop */
        INSN(0x85, 0, 0, 0, 7),                                /* r7 = bpf_get_prandom_u32() & flows - 1 */
        INSN(0xbf, 7, 0, 0, 0), INSN(0x57, 7, 0, 0, (int32_t)(flows - 1)),
        INSN(0x63, 10, 7, -4, 0),
        INSN(0x18, 1, 1, 0, sequences), INSN(0, 0, 0, 0, 0),   /* r0 = &sequences[r7] */
        INSN(0xbf, 2, 10, 0, 0), INSN(0x07, 2, 0, 0, -4), INSN(0x85, 0, 0, 0, 1),
        INSN(0x15, 0, 0, 21, 0),                               /* if !r0 goto drop */
        INSN(0x61, 8, 0, 0, 0), INSN(0xbf, 1, 8, 0, 0), INSN(0x07, 1, 0, 0, 6), INSN(0x63, 0, 1, 0, 0), /* r8 = *r0, *r0 += 6 */
        INSN(0x61, 2, 6, 0, 0), INSN(0x61, 3, 6, 4, 0),        /* r2 = data, r3 = data_end */
        INSN(0xbf, 4, 2, 0, 0), INSN(0x07, 4, 0, 0, 60),
        INSN(0x2d, 4, 3, 12, 0),                               /* if r2 + 60 > r3 goto drop */
        INSN(0x07, 7, 0, 0, 1024),                             /* the port, whatever its bytes' order, is not 0 */
        INSN(0x6b, 2, 7, TCP, 0), INSN(0xa7, 7, 0, 0, 0xffff), INSN(0x6b, 2, 7, PAYLOAD, 0),
        INSN(0xdc, 8, 0, 0, 32),                               /* r8 = htonl(r8) */
        INSN(0x63, 2, 8, TCP + 4, 0), INSN(0xa4, 8, 0, 0, -1), INSN(0x63, 2, 8, PAYLOAD + 2, 0),
        INSN(0xb7, 1, 0, 0, interface), INSN(0xb7, 2, 0, 0, 0), INSN(0x85, 0, 0, 0, 23), /* return bpf_redirect(interface, 0) */
        INSN(0x95, 0, 0, 0, 0),
        INSN(0xb7, 0, 0, 0, 1), INSN(0x95, 0, 0, 0, 0),        /* drop: return XDP_DROP */
    };
    char said[16384] = "";
    union bpf_attr a = {.prog_type = BPF_PROG_TYPE_XDP, .insn_cnt = sizeof code / sizeof *code, .insns = (uintptr_t)code, .license = (uintptr_t)"GPL",
                        .log_buf = (uintptr_t)said, .log_size = sizeof said, .log_level = 1};
    int program = bpf(BPF_PROG_LOAD, &a);
    if (program < 0) fprintf(stderr, "%s", said);
    return program;
}

static uint32_t add(uint32_t sum, const uint8_t *from, int bytes)
{
    for (int i = 0; i < bytes; i += 2) sum += (uint32_t)from[i] << 8 | from[i + 1];
    return sum;
}

static void put_checksum(uint8_t *at, uint32_t sum)
{
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    at[0] = (uint8_t)(~sum >> 8), at[1] = (uint8_t)~sum;
}

int main(int argc, char **argv)
{
    if (argc != 6) return fprintf(stderr, "usage: xdp_generate INTERFACE NETWORK FLOWS SHARE SECONDS\n"), 2;
    int interface = (int)if_nametoindex(argv[1]);
    uint8_t network = (uint8_t)atoi(argv[2]);
    uint32_t flows = (uint32_t)atoi(argv[3]);
    double share = atof(argv[4]), seconds = atof(argv[5]);
    if (!interface || !flows || flows & (flows - 1) || flows > 32768) return fprintf(stderr, "xdp_generate: no such interface, or flows is no power of two\n"), 2;
    union bpf_attr m = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = flows};
    int sequences = bpf(BPF_MAP_CREATE, &m);
    int program = sequences < 0 ? -1 : load(interface, sequences, flows, share);
    if (program < 0) return fprintf(stderr, "xdp_generate: the program cannot be loaded: %s\n", strerror(errno)), 1;
    /* Each run goes on where the one before it ended: nothing is sent twice. */
    uint32_t first = (uint32_t)(now() * 1e6);
    for (uint32_t i = 0; i < flows; i++) {
        union bpf_attr u = {.map_fd = (uint32_t)sequences, .key = (uintptr_t)&i, .value = (uintptr_t)&first};
        if (bpf(BPF_MAP_UPDATE_ELEM, &u) < 0) return 1;
    }
    uint8_t frame[60] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00,
                         0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, network, 0, 1, 10, network, 0, 2,
                         0, 0, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff};
    put_checksum(frame + 24, add(0, frame + ETH, 20));
    put_checksum(frame + TCP + 16, add(6 + 26, frame + ETH + 12, 8 + 20));
    struct xdp_md context = {.data_end = sizeof frame};
    union bpf_attr a = {.test = {.prog_fd = (uint32_t)program, .data_in = (uintptr_t)frame, .data_size_in = sizeof frame, .ctx_in = (uintptr_t)&context,
                                 .ctx_size_in = sizeof context, .repeat = SLICE, .flags = 2 /* BPF_F_TEST_XDP_LIVE_FRAMES */, .batch_size = BATCH}};
    double begin = now(), at = begin;
    while ((at = now()) - begin < seconds)
        if (bpf(BPF_PROG_TEST_RUN, &a) < 0) return fprintf(stderr, "xdp_generate: live frames cannot be sent: %s\n", strerror(errno)), 1;
    printf("{\"seconds\": %.6f}\n", at - begin);
    return 0;
}
