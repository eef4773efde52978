/* Packets that came to the wrong worker: an asymmetric NIC, fragments, tunnels, ICMP errors. Each goes to the owner of its innermost flow, who
 * counts it and passes it on; owners of outer flows get copies. An ICMP error goes to the owner of the flow that it is about, and from there to that of its
 * own (frame.c): both have a say in what becomes of it, and the first may translate it.
 *
 * Fragments have a home, which follows from their addresses alone. There they are put together and passed on; the last one, with the datagram
 * behind it, goes to the owner of its flow.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "port/af_packet.h"
#include "port/handover.h"
#include "port/multi.h"
#include "shard/shard.h"

#define MAX_DATAGRAM 66000u
#define WHOLE_ROOM (MAX_DATAGRAM + 64)

typedef struct way {
    smos__ring_t *ring; /* NULL: this worker itself */
    smos__region_t to, from;
    int bell;
    bool used; /* in this burst */
} way_t;

struct smos__handovers {
    uint32_t workers;
    bool any, clocks; /* somebody wants to know how far we are */
    smos__decoded_t decoded;
    uint8_t *room; /* a last fragment and its datagram, put together */
    way_t way[];
};


static uint32_t owner(const smos_shard_t *s, const smos_tuple_t *t) { return smos__owner(smos__owner_hash(t, s->config.owner_seed), s->config.workers); }


static uint32_t home(const smos_shard_t *s, const smos__decoded_t *d)
{
    return d->layers && !(d->layer[0].flags & SMOS__REASSEMBLED) ? owner(s, &d->layer[0].tuple) : smos__owner(d->owner_hash, s->config.workers);
}


static bool give(smos_shard_t *s, uint32_t worker, const smos__frame_t *frame, uint32_t flags)
{
    way_t *w = &s->handover->way[worker];
    smos__frame_t copy = *frame;
    copy.flags = (copy.flags & ~(uint32_t)SMOS__FRAME_JOINED) | flags;
    if (!smos__ring_push(w->ring, &copy)) return false;
    w->used = s->handover->any = true;
    return true;
}


/* The frame belongs to `worker`, who counts it; if there is no room, we do. Returns whether it is still ours. */
static bool give_away(smos_shard_t *s, uint32_t worker, const smos__frame_t *frame, uint32_t flags)
{
    if (give(s, worker, frame, flags)) {
        SMOS__COUNT(s, packets_handed_over);
        return false;
    }
    SMOS__COUNT(s, packets);
    SMOS__ADD(s, bytes, frame->len);
    SMOS__COUNT(s, drop_handover);
    return false;
}


void smos__handover_give(smos_shard_t *s, const smos_tuple_t *tuple, const smos__frame_t *frame, uint32_t flags)
{
    give_away(s, owner(s, tuple), frame, flags);
}


/* ---- fragments ---- */

/* The datagram as an Ethernet frame with the tags that the layer came with, behind the fragment itself. */
static smos__frame_t with_datagram(smos_shard_t *s, const smos__frame_t *frame, const smos__layer_t *l)
{
    uint8_t *at = s->handover->room;
    uint32_t fragment = frame->caplen < WHOLE_ROOM ? frame->caplen : WHOLE_ROOM;
    memcpy(at, frame->data, fragment);
    uint8_t *whole = at + fragment, *p = whole;
    memset(p, 0, 12);
    p += 12;
    for (int i = 0; i < 2 && l->vlan[i]; i++, p += 4) memcpy(p, (uint8_t[]){0x81, 0, (uint8_t)(l->vlan[i] >> 8), (uint8_t)l->vlan[i]}, 4);
    uint16_t type = l->tuple.version == 6 ? 0x86dd : 0x0800;
    *p++ = (uint8_t)(type >> 8);
    *p++ = (uint8_t)type;
    uint32_t length = l->ip_captured < MAX_DATAGRAM ? l->ip_captured : MAX_DATAGRAM;
    memcpy(p, l->ip, length);
    p += length;
    smos__frame_t both = *frame;
    both.data = at;
    both.token = (uint32_t)(p - whole);
    both.caplen = fragment + both.token;
    return both;
}


void smos__handover_decode(smos_shard_t *s, smos__frame_t *frame, smos__decoded_t *d)
{
    if (frame->flags & SMOS__FRAME_CARRIES) {
        if (frame->token > frame->caplen) frame->token = frame->caplen;
        frame->caplen -= frame->token;
        smos__frame_t whole = *frame;
        whole.data = frame->data + frame->caplen;
        whole.caplen = whole.len = frame->token;
        frame->len = frame->caplen;
        whole.linktype = 1;
        smos__decode(&whole, NULL, d);
        for (int i = 0; i < d->layers; i++) d->layer[i].flags |= SMOS__REASSEMBLED;
        d->fragments = 1;
        return;
    }
    if (frame->flags & SMOS__FRAME_HANDED) {
        smos__decode(frame, s->defrag, d);
        return;
    }
    smos__decode(frame, NULL, d);
    if (d->fragments && home(s, d) == s->config.worker) smos__decode(frame, s->defrag, d);
}


/* At home. */
static bool route_fragment(smos_shard_t *s, smos__frame_t *frame, smos__decoded_t *d)
{
    if (d->result == SMOS__WIRE_FRAGMENT || !d->layers) return true;
    const smos__layer_t *l = &d->layer[d->layers - 1];
    uint32_t to = owner(s, &l->tuple);
    if (to == s->config.worker || !(l->flags & SMOS__REASSEMBLED)) return true;
    smos__frame_t both = with_datagram(s, frame, l);
    if (d->layers > 1) { /* a tunnel's: the frame is passed on here, its inner flow gets a copy */
        if (!give(s, to, &both, SMOS__FRAME_CARRIES | SMOS__FRAME_COPY)) SMOS__COUNT(s, handover_copies_lost);
        return true;
    }
    d->layers = 0;
    return give_away(s, to, &both, SMOS__FRAME_CARRIES);
}


/* ---- all packets ---- */

/* Goes by way of the owner of the flow that it quotes: frame.c. */
static bool is_relayed(const smos__decoded_t *d) { return d->layers == 1 && d->layer[0].flags & SMOS__ICMP_ERROR; }


static bool route_packet(smos_shard_t *s, const smos__frame_t *frame, const smos__decoded_t *d)
{
    uint32_t me = s->config.worker;
    uint32_t to = d->layers ? owner(s, &d->layer[d->layers - 1].tuple) : smos__owner(d->owner_hash, s->config.workers);
    if (is_relayed(d)) return to = owner(s, &d->layer[0].quoted), to == me || give_away(s, to, frame, 0);
    uint32_t given[SMOS__MAX_LAYERS * 2] = {to};
    int count = 1;
    for (int i = 0; i < d->layers; i++) {
        const smos__layer_t *l = &d->layer[i];
        uint32_t also[2] = {owner(s, &l->tuple), l->flags & SMOS__ICMP_ERROR ? owner(s, &l->quoted) : me}; /* within a tunnel */
        for (int k = 0; k < 2; k++) {
            bool known = also[k] == me;
            for (int g = 0; g < count && !known; g++) known = given[g] == also[k];
            if (known) continue;
            given[count++] = also[k];
            if (!give(s, also[k], frame, SMOS__FRAME_COPY)) SMOS__COUNT(s, handover_copies_lost);
        }
    }
    return to == me || give_away(s, to, frame, 0);
}


bool smos__handover_route(smos_shard_t *s, smos__frame_t *frame, smos__decoded_t *d)
{
    uint32_t me = s->config.worker;
    if (frame->flags & SMOS__FRAME_ROUTED) return !(frame->flags & SMOS__FRAME_COPY);
    if (frame->flags & SMOS__FRAME_HANDED) {
        bool mine = !(frame->flags & SMOS__FRAME_COPY);
        if (mine) SMOS__COUNT(s, packets_taken_over);
        if (frame->flags & SMOS__FRAME_JOINED) return route_packet(s, frame, d);
        if (mine && d->fragments && !(frame->flags & SMOS__FRAME_CARRIES)) mine = route_fragment(s, frame, d);
        return mine;
    }
    if (d->fragments) {
        uint32_t to = home(s, d);
        if (to == me) return route_fragment(s, frame, d);
        d->layers = 0;
        return give_away(s, to, frame, 0);
    }
    return route_packet(s, frame, d);
}


/* Before the frame waits for its turn: what others own of it goes to them now. Fragments at home, and what is this worker's, are kept. */
static bool route_early(void *context, smos__frame_t *frame)
{
    smos_shard_t *s = context;
    smos__decoded_t *d = &s->handover->decoded;
    if (!smos__decode_fast(frame, d)) smos__decode(frame, NULL, d);
    if (d->fragments && home(s, d) == s->config.worker) return true;
    uint8_t layers = d->layers;
    bool mine = smos__handover_route(s, frame, d);
    frame->flags |= SMOS__FRAME_ROUTED | (mine ? 0 : SMOS__FRAME_COPY);
    if (mine) return true;
    if (!d->layers || is_relayed(d)) return false; /* a fragment, at home elsewhere */
    for (int i = 0; i < layers; i++) {
        const smos__layer_t *l = &d->layer[i];
        if (owner(s, &l->tuple) == s->config.worker || (l->flags & SMOS__ICMP_ERROR && owner(s, &l->quoted) == s->config.worker)) return true;
    }
    return false;
}


void smos__handover_flush(smos_shard_t *s)
{
    struct smos__handovers *h = s->handover;
    int64_t now = smos__host_ns();
    h->clocks = false;
    for (uint32_t i = 0; i < h->workers; i++) {
        if (!h->way[i].ring || !smos__ring_clock_wanted(h->way[i].ring, now)) continue;
        smos__ring_set_clock(h->way[i].ring, s->port->clear_ns);
        h->clocks = true;
    }
    if (!h->any) return;
    h->any = false;
    for (uint32_t i = 0; i < h->workers; i++) {
        way_t *w = &h->way[i];
        uint64_t one = 1;
        if (w->used && smos__ring_wants_bell(w->ring) && write(w->bell, &one, sizeof one) < 0) one = 0; /* full: it is rung already */
        w->used = false;
    }
}


bool smos__handover_is_hot(const smos_shard_t *s) { return s->handover && s->handover->clocks; }


void smos__handover_close(smos_shard_t *s)
{
    struct smos__handovers *h = s->handover;
    if (!h) return;
    for (uint32_t i = 0; i < h->workers; i++) {
        smos__ring_free(h->way[i].ring);
        smos__region_unmap(&h->way[i].to);
        smos__region_unmap(&h->way[i].from);
    }
    free(h->room);
    free(h);
    s->handover = NULL;
}


static smos__ring_t *map_ring(smos_shard_t *s, int fd, smos__region_t *region, bool producer)
{
    struct stat st;
    uint64_t lost = 0;
    if (fstat(fd, &st) < 0 || st.st_size <= 0) return NULL;
    void *memory = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) return NULL;
    *region = (smos__region_t){memory, (size_t)st.st_size};
    smos__ring_t *ring = smos__ring_open(memory, region->bytes, producer, &lost);
    SMOS__ADD(s, handover_bytes_lost, lost);
    return ring;
}


int smos_shard_set_handover(smos_shard_t *s, const int *from, const int *to, const int *bells, int scattered, char *error)
{
    uint32_t workers = s->config.workers, me = s->config.worker;
    if (s->handover || workers < 2 || workers > 256) return snprintf(error, SMOS_ERROR_SIZE, "hand-over is between 2 to 256 workers, and set once"), -EINVAL;
    struct smos__handovers *h = s->handover = calloc(1, sizeof *h + workers * sizeof *h->way);
    if (h) h->room = malloc(2 * WHOLE_ROOM);
    int bell = bells[me]; /* one port has it for all */
    if (!h || !h->room) {
        smos__handover_close(s);
        return snprintf(error, SMOS_ERROR_SIZE, "out of memory"), -ENOMEM;
    }
    h->workers = workers;
    for (uint32_t i = 0; i < workers; i++) {
        if (i == me) continue;
        way_t *w = &h->way[i];
        w->bell = bells[i];
        w->ring = map_ring(s, to[i], &w->to, true);
        smos__ring_t *in = w->ring ? map_ring(s, from[i], &w->from, false) : NULL;
        smos__port_t *port = in ? smos__handover_open(in, bell, error) : NULL;
        if (!port) {
            smos__ring_free(in);
            return snprintf(error, SMOS_ERROR_SIZE, "the hand-over rings with worker %u cannot be mapped: %s", i, strerror(errno)), -EINVAL;
        }
        int status = smos__shard_add_port(s, port, error);
        if (status) return status;
        bell = -1;
    }
    smos__multi_set_route(s->port, route_early, s);
    if (scattered) smos__multi_keep_order(s->port);
    return 0;
}
