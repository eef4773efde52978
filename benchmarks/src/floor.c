/* floor FILE [SLOTS]: the least any flow engine can do: find the packets of a mapped capture, take the 5-tuple, count per flow.
 *
 * The file is prefetched 4 KiB ahead (a walk that skips payloads waits for memory once a record otherwise), and a flow's
 * slot is probed 8 packets after it was prefetched. No state, no checksum, no deletion: what is above this cost is an
 * engine's own. Understands native-order microsecond pcap of Ethernet, IPv4 and TCP, as `generate` writes it.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "measure.h"

enum { AHEAD = 4096, LAG = 8, FILE_HEADER = 24, RECORD_HEADER = 16 };

typedef struct flow {
    uint64_t addresses, ports; /* lower endpoint first; ports is 0 in a free slot */
    uint64_t packets, bytes;
    uint64_t rest[4]; /* one cache line, as a real engine's hot part */
} flow_t;

typedef struct waiting {
    uint64_t addresses, ports, slot;
    uint32_t length;
} waiting_t;

typedef struct floor {
    flow_t *table;
    uint64_t mask, flows, packets, bytes, lost;
} floor_t;

static uint32_t be32(const uint8_t *from)
{
    uint32_t value;
    memcpy(&value, from, 4);
    return __builtin_bswap32(value);
}

static void count(floor_t *f, const waiting_t *w)
{
    for (uint64_t probe = 0, slot = w->slot; probe <= f->mask; probe++, slot = (slot + 1) & f->mask) {
        flow_t *flow = &f->table[slot];
        if (!flow->ports) {
            flow->addresses = w->addresses;
            flow->ports = w->ports;
            f->flows++;
        }
        if (flow->addresses == w->addresses && flow->ports == w->ports) {
            flow->packets++;
            flow->bytes += w->length;
            return;
        }
    }
    f->lost++;
}

/* Not inlined: callgrind collects in this function only. */
__attribute__((noinline)) static void bench_loop(floor_t *f, const uint8_t *at, const uint8_t *end)
{
    waiting_t ring[LAG];
    uint64_t in = 0, out = 0;
    while (end - at >= RECORD_HEADER) {
        uint32_t caplen, length;
        memcpy(&caplen, at + 8, 4);
        memcpy(&length, at + 12, 4);
        const uint8_t *frame = at + RECORD_HEADER, *next = frame + caplen;
        if (caplen > (size_t)(end - frame))
            break;
        for (const uint8_t *line = at + AHEAD; line < next + AHEAD; line += 64)
            __builtin_prefetch(line, 0, 1);
        at = next;
        f->packets++;
        f->bytes += length;
        if (caplen < 54 || frame[12] != 8 || frame[13] != 0 || frame[23] != 6)
            continue;
        uint32_t header = (uint32_t)(frame[14] & 15) * 4;
        if (header < 20 || 14 + header + 4 > caplen)
            continue;
        uint64_t source = be32(frame + 26), target = be32(frame + 30), ports = be32(frame + 14 + header);
        uint64_t sport = ports >> 16, dport = ports & 0xffff;
        int swap = source > target || (source == target && sport > dport);
        waiting_t *w = &ring[in++ % LAG];
        w->addresses = swap ? target << 32 | source : source << 32 | target;
        w->ports = (swap ? dport << 16 | sport : sport << 16 | dport) | 6ull << 32;
        w->length = length;
        uint64_t hash = (w->addresses * 0x9e3779b97f4a7c15u ^ w->ports) * 0xbf58476d1ce4e5b9u;
        w->slot = (hash ^ hash >> 32) & f->mask;
        __builtin_prefetch(&f->table[w->slot], 1, 3);
        if (in - out == LAG)
            count(f, &ring[out++ % LAG]);
    }
    while (out < in)
        count(f, &ring[out++ % LAG]);
}

int main(int argc, char **argv)
{
    uint64_t slots = argc == 3 ? strtoull(argv[2], NULL, 10) : 1 << 17;
    if (argc < 2 || argc > 3 || !slots || slots & (slots - 1) || slots > 1ull << 32) {
        fputs("usage: floor FILE [SLOTS, a power of two]\n", stderr);
        return 2;
    }
    struct stat status;
    int fd = open(argv[1], O_RDONLY);
    if (fd < 0 || fstat(fd, &status) || status.st_size < FILE_HEADER) {
        fprintf(stderr, "floor: %s: cannot be read as a capture\n", argv[1]);
        return 1;
    }
    const uint8_t *file = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    floor_t f = {.table = aligned_alloc(64, slots * sizeof(flow_t)), .mask = slots - 1};
    uint32_t magic;
    if (file == MAP_FAILED || !f.table) {
        fputs("floor: out of memory\n", stderr);
        return 1;
    }
    memcpy(&magic, file, 4);
    if (magic != 0xa1b2c3d4u) {
        fprintf(stderr, "floor: %s: not a native-order microsecond pcap\n", argv[1]);
        return 1;
    }
    madvise((void *)(uintptr_t)file, (size_t)status.st_size, MADV_SEQUENTIAL);
    memset(f.table, 0, slots * sizeof(flow_t));
    bench_loop(&f, file + FILE_HEADER, file + status.st_size);
    printf("{\"packets\": %" PRIu64 ", \"flows\": %" PRIu64 ", \"frame_bytes\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"cpu_ns\": %" PRIu64
           "}\n",
           f.packets, f.flows, f.bytes, f.lost, cpu_ns());
    return 0;
}
