/* xsk_count MEMORY_FD FRAMES FRAME_BYTES RING BUSY SOCKET_FD: the least that an AF_XDP receiver can do. Counts frames and their bytes, gives them back.
 * Ends at the end of its standard input; prints one JSON line. */
#include <fcntl.h>
#include <linux/if_xdp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct ring {
    uint32_t *producer, *consumer, own;
    void *entries;
} ring_t;

static ring_t map(int fd, const struct xdp_ring_offset *o, uint64_t page, size_t bytes)
{
    uint8_t *at = mmap(NULL, o->desc + bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, (off_t)page);
    if (at == MAP_FAILED) perror("xsk_count: mmap"), exit(1);
    return (ring_t){(uint32_t *)(at + o->producer), (uint32_t *)(at + o->consumer), 0, at + o->desc};
}

int main(int argc, char **argv)
{
    if (argc != 7) return 2;
    uint32_t entries = (uint32_t)atoi(argv[4]), frame_bytes = (uint32_t)atoi(argv[3]);
    int fd = atoi(argv[6]), busy = atoi(argv[5]);
    struct xdp_mmap_offsets o;
    socklen_t size = sizeof o;
    if (getsockopt(fd, 283, XDP_MMAP_OFFSETS, &o, &size)) return perror("xsk_count"), 1;
    size_t all = (size_t)atoi(argv[2]) * frame_bytes;
    const volatile uint8_t *memory = mmap(NULL, all, PROT_READ, MAP_SHARED | MAP_POPULATE, atoi(argv[1]), 0);
    if (memory == MAP_FAILED) return perror("xsk_count: memory"), 1;
    ring_t receive = map(fd, &o.rx, XDP_PGOFF_RX_RING, entries * sizeof(struct xdp_desc));
    ring_t fill = map(fd, &o.fr, XDP_UMEM_PGOFF_FILL_RING, entries * sizeof(uint64_t));
    receive.own = *receive.consumer;
    fill.own = *fill.producer;
    uint64_t packets = 0, bytes = 0, touched = 0;
    fcntl(0, F_SETFL, O_NONBLOCK);
    struct pollfd wait[2] = {{.fd = fd, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    for (uint32_t turn = 0;; turn++) {
        uint32_t there = __atomic_load_n(receive.producer, __ATOMIC_ACQUIRE) - receive.own;
        if (there > 64) there = 64;
        for (uint32_t i = 0; i < there; i++, receive.own++) {
            const struct xdp_desc *d = (struct xdp_desc *)receive.entries + (receive.own & (entries - 1));
            touched += memory[d->addr + 12];
            bytes += d->len;
            ((uint64_t *)fill.entries)[fill.own++ & (entries - 1)] = d->addr - d->addr % frame_bytes;
        }
        packets += there;
        __atomic_store_n(receive.consumer, receive.own, __ATOMIC_RELEASE);
        __atomic_store_n(fill.producer, fill.own, __ATOMIC_RELEASE);
        if (busy) (void)recvfrom(fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
        else if (!there) poll(wait, 2, 1000);
        char c;
        if (turn % 1024 == 0 || (!busy && !there))
            if (!read(0, &c, 1)) break;
    }
    printf("{\"packets\": %llu, \"bytes\": %llu, \"touched\": %llu}\n", (unsigned long long)packets, (unsigned long long)bytes, (unsigned long long)touched);
    return 0;
}
