/* A passive port: a TPACKET_V3 ring. The kernel fills blocks with frames of any size and hands over a block when it is full or its time is up. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "port/af_packet.h"

#define STAMPED_NS 2000000 /* between a frame's time and its being counted in its block */
#define LOOK_NS 1000000 /* between two looks at the socket's error */

typedef struct blocks {
    smos__port_t port;
    uint8_t *ring;
    size_t bytes;
    uint32_t block_bytes, count, at; /* `at`: the block under the hand, or the next to come */
    uint32_t left;                   /* frames of the block that were not delivered */
    bool held;                       /* the block is ours until the next receive */
    uint8_t *next;                   /* its next frame */
    int fd;
    int64_t looked_ns;
    uint16_t linktype;
    uint32_t largest; /* frame that the wire can carry */
} blocks_t;


static struct tpacket_block_desc *block(const blocks_t *b, uint32_t i) { return (struct tpacket_block_desc *)(b->ring + (size_t)i * b->block_bytes); }


static bool is_ready(const blocks_t *b, uint32_t i) { return __atomic_load_n(&block(b, i)->hdr.bh1.block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER; }


/* Where another process was: at the oldest block that is ready, or at the one that is being filled. Blocks are numbered from 1 on. */
static uint32_t resume_at(const blocks_t *b)
{
    uint32_t oldest = 0, newest = 0;
    uint64_t low = UINT64_MAX, high = 0;
    for (uint32_t i = 0; i < b->count; i++) {
        uint64_t number = block(b, i)->hdr.bh1.seq_num;
        if (is_ready(b, i) && number < low) low = number, oldest = i;
        if (number > high) high = number, newest = i;
    }
    return low != UINT64_MAX ? oldest : newest;
}


static void look(blocks_t *b, int64_t now)
{
    if (now - b->looked_ns < LOOK_NS) return;
    b->looked_ns = now;
    smos__packet_clear(b->fd);
}


static void deliver(blocks_t *b, smos__frame_t *frame, struct tpacket3_hdr *h)
{
    uint8_t *data = (uint8_t *)h + h->tp_mac;
    uint32_t tag = 0;
    if (h->tp_status & TP_STATUS_VLAN_VALID) {
        data = smos__vlan_back(data, h->tp_status & TP_STATUS_VLAN_TPID_VALID ? h->hv1.tp_vlan_tpid : 0x8100, (uint16_t)h->hv1.tp_vlan_tci);
        tag = 4;
    }
    *frame = (smos__frame_t){.data = data, .caplen = h->tp_snaplen + tag, .len = h->tp_len + tag, .time_ns = (int64_t)h->tp_sec * 1000000000 + h->tp_nsec,
                             .number = ++b->port.stats.packets, .linktype = b->linktype, .flags = h->tp_status & TP_STATUS_CSUMNOTREADY ? SMOS__FRAME_NO_CHECKSUM : 0};
    b->port.stats.bytes += frame->len;
    const struct sockaddr_ll *from = (const struct sockaddr_ll *)((uint8_t *)h + TPACKET_ALIGN(sizeof *h));
    b->port.stats.outgoing += from->sll_pkttype == PACKET_OUTGOING;
    if (frame->len > b->largest) b->port.stats.segments += (frame->len - 1) / b->largest;
}


static int receive(smos__port_t *port, smos__frame_t *burst, int max)
{
    blocks_t *b = (blocks_t *)port;
    int64_t now = smos__host_ns();
    if (b->held && !b->left) {
        block(b, b->at)->hdr.bh1.num_pkts = 0;
        __atomic_store_n(&block(b, b->at)->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
        b->held = false;
        b->at = (b->at + 1) % b->count;
    }
    if (!b->held) {
        if (!is_ready(b, b->at)) {
            look(b, now);
            port->now_ns = now;
            /* The kernel counts in the block while it fills it: none means that nothing waits for the block's time to be up. */
            if (!__atomic_load_n(&block(b, b->at)->hdr.bh1.num_pkts, __ATOMIC_RELAXED)) port->clear_ns = now - STAMPED_NS;
            return 0;
        }
        b->held = true;
        b->left = block(b, b->at)->hdr.bh1.num_pkts;
        b->next = (uint8_t *)block(b, b->at) + block(b, b->at)->hdr.bh1.offset_to_first_pkt;
    }
    int n = 0;
    for (; n < max && b->left; n++, b->left--) {
        struct tpacket3_hdr *h = (struct tpacket3_hdr *)b->next;
        __builtin_prefetch(b->next + 2 * h->tp_next_offset);
        deliver(b, &burst[n], h);
        b->next += h->tp_next_offset;
    }
    return n;
}


static void close_port(smos__port_t *port)
{
    blocks_t *b = (blocks_t *)port;
    munmap(b->ring, b->bytes);
    free(b);
}


smos__port_t *smos__blocks_open(const smos_packet_port_t *o, char *error)
{
    blocks_t *b = calloc(1, sizeof *b);
    if (!b) return snprintf(error, SMOS__PORT_ERROR, "out of memory"), NULL;
    b->fd = o->fd[0];
    b->block_bytes = o->block_bytes;
    b->count = o->blocks;
    b->bytes = (size_t)o->block_bytes * o->blocks;
    b->linktype = o->linktype;
    b->largest = o->mtu + 18;
    b->ring = mmap(NULL, b->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd, 0);
    if (b->ring == MAP_FAILED) {
        snprintf(error, SMOS__PORT_ERROR, "%.15s: the receive ring of %zu bytes cannot be mapped: %s", o->name[0], b->bytes, strerror(errno));
        free(b);
        return NULL;
    }
    if (o->resumed) b->at = resume_at(b);
    b->port = (smos__port_t){.receive = receive, .close = close_port, .fd = b->fd, .ends = 1};
    return &b->port;
}
