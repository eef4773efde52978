/* An inline pair: two TPACKET_V2 rings, one per end, and sendmmsg out of the other. V2, because V3 wakes nobody before a block is full.
 *
 * A slot holds a frame of the MTU. Super packets (GRO, TSO) are larger: the kernel marks their slot and queues them whole at the socket, in the
 * same order, and one recvmsg fetches each.
 *
 * The slot's padding, which the kernel clears with every new frame, keeps what became of it for whoever comes after a crash.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "port/af_packet.h"

#define LOOK_NS 1000000 /* between two looks at the sockets' errors */
#define STAMPED_NS 200000 /* between a frame's time and its slot's being ours */
#define OURS_BYTES (4u << 20) /* frames of our own in one burst */
#define BIG_ROOM (SMOS__LARGEST_FRAME + 64)
#define TRIES 2 /* a frame that was received so often without being settled killed whoever looked at it */

enum { TRIED = 0, SETTLED = 1, FETCHED = 2 }; /* bytes of tp_padding */
enum { UNSETTLED = 0, FORWARDED = 1, DROPPED = 2 };

typedef struct end {
    uint8_t *ring;
    uint32_t count, next, first; /* slots; those from first to next are ours */
    bool searching;              /* where the kernel goes on is not known */
    uint32_t careful;            /* frames that another process had in its hands: one at a time */
    int fd;
    smos__transmit_t out;
} end_t;

typedef struct pair {
    smos__port_t port;
    end_t end[2];
    uint32_t slot_bytes, per_block, block_bytes;
    size_t ring_bytes;
    int turn;
    int64_t looked_ns;
    uint8_t *big;  /* SMOS__BURST places for super packets */
    int big_used;
    uint8_t *ours; /* copies for send */
    uint32_t ours_used;
    bool fail_open;
} pair_t;


static struct tpacket2_hdr *slot(const pair_t *p, const end_t *e, uint32_t i)
{
    return (struct tpacket2_hdr *)(e->ring + (size_t)(i / p->per_block) * p->block_bytes + (size_t)(i % p->per_block) * p->slot_bytes);
}


static uint32_t status_of(const struct tpacket2_hdr *h) { return __atomic_load_n(&h->tp_status, __ATOMIC_ACQUIRE); }


static void release(struct tpacket2_hdr *h) { __atomic_store_n(&h->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE); }


/* The oldest slot that is ours, where another process used the ring before. False: none is. */
static bool search(const pair_t *p, end_t *e)
{
    uint32_t full = 0, oldest = 0;
    uint64_t low = UINT64_MAX;
    for (uint32_t i = 0; i < e->count; i++) {
        const struct tpacket2_hdr *h = slot(p, e, i);
        if (!(status_of(h) & TP_STATUS_USER)) continue;
        full++;
        bool edge = !(status_of(slot(p, e, (i + e->count - 1) % e->count)) & TP_STATUS_USER);
        uint64_t at = edge ? 0 : (uint64_t)h->tp_sec * 1000000000 + h->tp_nsec; /* without an edge the ring is full: by time */
        if (at < low) low = at, oldest = i;
    }
    if (!full) return false;
    e->next = e->first = oldest;
    e->searching = false;
    return true;
}


/* A super packet, or NULL if it is not to be had. */
static uint8_t *fetch(pair_t *p, end_t *e, struct tpacket2_hdr *h, struct virtio_net_hdr *header)
{
    if (h->tp_padding[FETCHED]) return NULL; /* whoever died had it */
    h->tp_padding[FETCHED] = 1;
    uint8_t *at = p->big + (size_t)p->big_used * BIG_ROOM + 16;
    struct iovec parts[2] = {{header, sizeof *header}, {at, BIG_ROOM - 16}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t got = recvmsg(e->fd, &message, MSG_DONTWAIT | MSG_TRUNC);
    if (got != (ssize_t)(h->tp_len + sizeof *header) || got > (ssize_t)(BIG_ROOM - 16)) return NULL;
    p->big_used++;
    return at;
}


/* 1 delivered, 0 there is nothing to deliver in this slot (it is settled). */
static int deliver(pair_t *p, int which, uint32_t at, struct tpacket2_hdr *h, smos__frame_t *frame)
{
    end_t *e = &p->end[which];
    uint32_t status = h->tp_status, length = h->tp_len;
    uint8_t *data = (uint8_t *)h + h->tp_mac;
    struct virtio_net_hdr header;
    if (h->tp_snaplen < length) {
        data = status & TP_STATUS_COPY ? fetch(p, e, h, &header) : NULL;
        if (!data) {
            p->port.stats.dropped++;
            h->tp_padding[SETTLED] = DROPPED;
            return 0;
        }
    } else {
        memcpy(&header, data - sizeof header, sizeof header);
    }
    uint16_t tag = 0;
    if (status & TP_STATUS_VLAN_VALID) {
        data = smos__vlan_back(data, status & TP_STATUS_VLAN_TPID_VALID ? h->tp_vlan_tpid : 0x8100, h->tp_vlan_tci);
        tag = 4;
    }
    smos__offload_t offload = {header.flags & SMOS__OFFLOAD_PARTIAL, header.gso_type, header.hdr_len, header.gso_size, header.csum_start, header.csum_offset};
    if (offload.flags) offload.csum_start += tag;
    if (offload.gso_type) {
        if (offload.gso_size && length > offload.hdr_len) p->port.stats.segments += (length - offload.hdr_len - 1u) / offload.gso_size;
        offload.hdr_len += tag;
    }
    *frame = (smos__frame_t){.data = data, .caplen = length + tag, .len = length + tag, .time_ns = (int64_t)h->tp_sec * 1000000000 + h->tp_nsec,
                             .number = ++p->port.stats.packets, .linktype = 1, .flags = offload.flags || offload.gso_type ? SMOS__FRAME_NO_CHECKSUM : 0,
                             .end = (uint8_t)which, .offload = offload, .token = at};
    return 1;
}


static int take(pair_t *p, int which, smos__frame_t *burst, int max)
{
    end_t *e = &p->end[which];
    if (e->searching && !search(p, e)) return 0;
    int n = 0;
    while (n < max && p->big_used < SMOS__BURST) {
        struct tpacket2_hdr *h = slot(p, e, e->next);
        if (!(status_of(h) & TP_STATUS_USER)) break;
        __builtin_prefetch(slot(p, e, (e->next + 2) % e->count));
        __builtin_prefetch((uint8_t *)slot(p, e, (e->next + 1) % e->count) + 128);
        uint32_t at = e->next;
        if (h->tp_padding[TRIED]) e->careful = 1;
        if (e->careful && n) break;
        bool poison = h->tp_padding[SETTLED] == UNSETTLED && h->tp_padding[TRIED] >= TRIES;
        p->port.stats.poison += poison;
        if (poison) h->tp_padding[SETTLED] = p->fail_open ? FORWARDED : DROPPED;
        if (h->tp_padding[SETTLED] == UNSETTLED) {
            n += deliver(p, which, at, h, &burst[n]);
            h->tp_padding[TRIED]++;
        } else if (h->tp_padding[SETTLED] == FORWARDED) { /* decided, but not sent */
            smos__frame_t frame;
            if (deliver(p, which, at, h, &frame)) smos__transmit_queue(&p->end[!which].out, frame.data, frame.len, &frame.offload, true);
        }
        e->next = (e->next + 1) % e->count;
        if (e->careful) {
            e->careful = 0;
            if (n) break;
        }
    }
    return n;
}


static void flush(smos__port_t *port);


static void look(pair_t *p, int64_t now)
{
    p->looked_ns = now;
    for (int i = 0; i < 2; i++) smos__packet_clear(p->end[i].fd);
}


static int receive(smos__port_t *port, smos__frame_t *burst, int max)
{
    pair_t *p = (pair_t *)port;
    p->turn = !p->turn; /* neither end starves the other */
    p->big_used = 0;
    int64_t before = smos__host_ns();
    int n = take(p, p->turn, burst, (max + 1) / 2);
    n += take(p, !p->turn, burst + n, max - n);
    for (int i = 0; i < n; i++) p->port.stats.bytes += burst[i].len;
    if (n) return n;
    flush(port);
    int64_t now = before;
    if (now - p->looked_ns > LOOK_NS) look(p, now);
    port->now_ns = now;
    port->clear_ns = before - STAMPED_NS;
    return 0;
}


static void settle(pair_t *p, const smos__frame_t *frame, uint8_t how)
{
    if (!(frame->flags & SMOS__FRAME_HANDED)) slot(p, &p->end[frame->end], frame->token)->tp_padding[SETTLED] = how;
}


static void forward(smos__port_t *port, smos__frame_t *frame)
{
    pair_t *p = (pair_t *)port;
    smos__transmit_queue(&p->end[!frame->end].out, frame->data, frame->len, &frame->offload, false);
    settle(p, frame, FORWARDED);
}


static void drop(smos__port_t *port, smos__frame_t *frame) { settle((pair_t *)port, frame, DROPPED); }


static int send_ours(smos__port_t *port, int end, const uint8_t *data, uint32_t length, const smos__frame_t *like)
{
    pair_t *p = (pair_t *)port;
    if (length < 14 || length > SMOS__LARGEST_FRAME) return port->stats.unsent++, -EMSGSIZE;
    if (p->ours_used + length > OURS_BYTES) {
        for (int i = 0; i < 2; i++) smos__transmit_flush(&p->end[i].out);
        p->ours_used = 0;
    }
    uint8_t *copy = p->ours + p->ours_used;
    memcpy(copy, data, length);
    p->ours_used += (length + 63) & ~63u;
    if (p->ours_used > OURS_BYTES) p->ours_used = OURS_BYTES;
    smos__transmit_queue(&p->end[end & 1].out, copy, length, like ? &like->offload : NULL, true);
    return 0;
}


static void flush(smos__port_t *port)
{
    pair_t *p = (pair_t *)port;
    for (int i = 0; i < 2; i++)
        if (p->end[i].out.count) smos__transmit_flush(&p->end[i].out);
    for (int i = 0; i < 2; i++)
        for (end_t *e = &p->end[i]; e->first != e->next; e->first = (e->first + 1) % e->count) {
            struct tpacket2_hdr *h = slot(p, e, e->first);
            if (h->tp_padding[SETTLED] == UNSETTLED) break;
            release(h);
        }
    p->ours_used = 0;
}


static void close_port(smos__port_t *port)
{
    pair_t *p = (pair_t *)port;
    for (int i = 0; i < 2; i++)
        if (p->end[i].ring) munmap(p->end[i].ring, p->ring_bytes);
    if (p->big) munmap(p->big, (size_t)SMOS__BURST * BIG_ROOM);
    if (p->ours) munmap(p->ours, OURS_BYTES);
    if (port->fd >= 0) close(port->fd);
    free(p);
}


static void *memory(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}


smos__port_t *smos__pair_open(const smos_packet_port_t *o, char *error)
{
    pair_t *p = calloc(1, sizeof *p);
    if (!p) return snprintf(error, SMOS__PORT_ERROR, "out of memory"), NULL;
    p->port = (smos__port_t){.receive = receive, .close = close_port, .forward = forward, .drop = drop, .send = send_ours, .flush = flush, .fd = -1, .ends = 2};
    p->slot_bytes = o->frame_bytes;
    p->block_bytes = o->block_bytes;
    p->per_block = o->frame_bytes ? o->block_bytes / o->frame_bytes : 0;
    p->ring_bytes = (size_t)o->block_bytes * o->blocks;
    p->fail_open = o->fail_open;
    uint32_t count = p->per_block * o->blocks;
    if (count < 2 * SMOS__BURST) {
        snprintf(error, SMOS__PORT_ERROR, "%.15s: a receive ring of %u slots is too small; give at least %d", o->name[0], count, 2 * SMOS__BURST);
        return close_port(&p->port), NULL;
    }
    p->big = memory((size_t)SMOS__BURST * BIG_ROOM);
    p->ours = memory(OURS_BYTES);
    p->port.fd = epoll_create1(EPOLL_CLOEXEC);
    int problem = p->big && p->ours && p->port.fd >= 0 ? 0 : errno;
    for (int i = 0; i < 2 && !problem; i++) {
        end_t *e = &p->end[i];
        *e = (end_t){.fd = o->fd[i], .count = count, .searching = o->resumed, .out = {.fd = o->fd[i], .stats = &p->port.stats}};
        void *ring = mmap(NULL, p->ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, e->fd, 0);
        if (ring == MAP_FAILED) {
            problem = errno;
            break;
        }
        e->ring = ring;
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        if (epoll_ctl(p->port.fd, EPOLL_CTL_ADD, e->fd, &event) < 0) problem = errno;
    }
    if (!problem) return &p->port;
    snprintf(error, SMOS__PORT_ERROR, "%.15s and %.15s: the rings cannot be mapped: %s", o->name[0], o->name[1], strerror(problem));
    return close_port(&p->port), NULL;
}
