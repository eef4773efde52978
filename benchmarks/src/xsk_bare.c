/* xsk_bare MEMORY_FD FRAMES FRAME_BYTES RING BUSY SOCKET_FD [SOCKET_FD]: the least that can be done with AF_XDP sockets. One: counts frames and their
 * bytes, and gives them back. Two, over one memory: forwards by moving descriptors. Ends at the end of its standard input. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_xdp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define BURST 64

typedef struct ring {
    uint32_t *producer, *consumer, *flags, own;
    void *entries;
} ring_t;

typedef struct end {
    int fd;
    ring_t receive, transmit, fill, completion;
} end_t;

static uint32_t entries;

static ring_t map(int fd, const struct xdp_ring_offset *o, uint64_t page, size_t bytes, bool ours)
{
    uint8_t *at = mmap(NULL, o->desc + bytes * entries, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, (off_t)page);
    if (at == MAP_FAILED) perror("xsk_bare: mmap"), exit(1);
    ring_t r = {(uint32_t *)(at + o->producer), (uint32_t *)(at + o->consumer), (uint32_t *)(at + o->flags), 0, at + o->desc};
    r.own = ours ? *r.producer : *r.consumer;
    return r;
}

static uint32_t filled(const ring_t *r)
{
    uint32_t there = __atomic_load_n(r->producer, __ATOMIC_ACQUIRE) - r->own;
    return there < BURST ? there : BURST;
}

static struct xdp_desc *desc(ring_t *r) { return (struct xdp_desc *)r->entries + (r->own++ & (entries - 1)); }
static uint64_t *address(ring_t *r) { return (uint64_t *)r->entries + (r->own++ & (entries - 1)); }
static void publish(const ring_t *r, uint32_t *position) { __atomic_store_n(position, r->own, __ATOMIC_RELEASE); }

/* What `from` sent goes back to where `to` receives. */
static void recycle(end_t *from, end_t *to, uint32_t frame_bytes)
{
    uint32_t n = filled(&from->completion);
    if (!n) return;
    while (n--) {
        uint64_t at = *address(&from->completion);
        *address(&to->fill) = at - at % frame_bytes;
    }
    publish(&from->completion, from->completion.consumer);
    publish(&to->fill, to->fill.producer);
}

static uint32_t forward(end_t *in, end_t *out, uint32_t frame_bytes)
{
    uint32_t n = filled(&in->receive), room = entries - (out->transmit.own - __atomic_load_n(out->transmit.consumer, __ATOMIC_ACQUIRE));
    if (n > room) n = room;
    for (uint32_t i = 0; i < n; i++) *desc(&out->transmit) = *desc(&in->receive);
    if (n) {
        publish(&out->transmit, out->transmit.producer);
        publish(&in->receive, in->receive.consumer);
    }
    while (__atomic_load_n(out->transmit.consumer, __ATOMIC_ACQUIRE) != out->transmit.own && sendto(out->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 &&
           (errno == EAGAIN || errno == EBUSY)) continue;
    recycle(out, in, frame_bytes);
    return n;
}

int main(int argc, char **argv)
{
    if (argc != 7 && argc != 8) return 2;
    uint32_t frame_bytes = (uint32_t)atoi(argv[3]);
    int busy = atoi(argv[5]), ends = argc - 6;
    entries = (uint32_t)atoi(argv[4]);
    size_t all = (size_t)atoi(argv[2]) * frame_bytes;
    const volatile uint8_t *memory = mmap(NULL, all, PROT_READ, MAP_SHARED | MAP_POPULATE, atoi(argv[1]), 0);
    if (memory == MAP_FAILED) return perror("xsk_bare: memory"), 1;
    end_t end[2];
    struct pollfd wait[3] = {{.fd = 0, .events = POLLIN}};
    for (int i = 0; i < ends; i++) {
        end_t *e = &end[i];
        struct xdp_mmap_offsets o;
        socklen_t size = sizeof o;
        e->fd = wait[1 + i].fd = atoi(argv[6 + i]);
        wait[1 + i].events = POLLIN;
        if (getsockopt(e->fd, 283, XDP_MMAP_OFFSETS, &o, &size)) return perror("xsk_bare"), 1;
        e->receive = map(e->fd, &o.rx, XDP_PGOFF_RX_RING, sizeof(struct xdp_desc), false);
        e->transmit = map(e->fd, &o.tx, XDP_PGOFF_TX_RING, sizeof(struct xdp_desc), true);
        e->fill = map(e->fd, &o.fr, XDP_UMEM_PGOFF_FILL_RING, sizeof(uint64_t), true);
        e->completion = map(e->fd, &o.cr, XDP_UMEM_PGOFF_COMPLETION_RING, sizeof(uint64_t), false);
    }
    uint64_t packets = 0, bytes = 0, touched = 0;
    fcntl(0, F_SETFL, O_NONBLOCK);
    for (uint32_t turn = 0;; turn++) {
        uint32_t n;
        if (ends == 2) {
            n = forward(&end[0], &end[1], frame_bytes) + forward(&end[1], &end[0], frame_bytes);
        } else {
            n = filled(&end[0].receive);
            for (uint32_t i = 0; i < n; i++) {
                const struct xdp_desc *d = desc(&end[0].receive);
                touched += memory[d->addr + 12];
                bytes += d->len;
                *address(&end[0].fill) = d->addr - d->addr % frame_bytes;
            }
            publish(&end[0].receive, end[0].receive.consumer);
            publish(&end[0].fill, end[0].fill.producer);
        }
        packets += n;
        if (busy) for (int i = 0; i < ends; i++) (void)recvfrom(end[i].fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
        else if (!n) poll(wait, 1 + (nfds_t)ends, 1000);
        char c;
        if ((turn % 1024 == 0 || (!busy && !n)) && !read(0, &c, 1)) break;
    }
    printf("{\"packets\": %llu, \"bytes\": %llu, \"touched\": %llu}\n", (unsigned long long)packets, (unsigned long long)bytes, (unsigned long long)touched);
    return 0;
}
