/* A port over AF_XDP sockets: passive with one end, or a pair between whose ends descriptors move. */
#include "port/af_xdp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "port/af_packet.h"
#include "wire/complete.h"

#define TRIES 2          /* a frame that was received so often without being settled killed whoever looked at it */
#define LOOK_NS 1000000  /* between two looks at the sockets' errors */
#define TAGS 8           /* bytes that two VLAN tags add to a frame of the MTU */
#define REFILL 32        /* frames at a time to the fill rings */

typedef struct xdp {
    smos__port_t port;
    smos__xsk_t socket[SMOS_XSK_SOCKETS];
    uint32_t first[3]; /* sockets of end e: from first[e] to before first[e + 1] */
    uint8_t *memory;
    size_t bytes;
    uint32_t frames, frame_bytes, largest;
    smos__xsk_note_t *note;
    uint32_t *free; /* a stack */
    uint32_t free_count;
    bool inherits; /* another process's receive rings are not worked off: the frames that they name are held */
    bool fail_open, busy_poll;
    uint32_t turn;
    uint32_t unsettled; /* frames of a pair that were received and met neither forward nor drop */
    int64_t looked_ns;
} xdp_t;


static void give_back(xdp_t *p, uint32_t frame)
{
    p->note[frame].where = SMOS__XSK_FREE;
    if (!p->note[frame].held) p->free[p->free_count++] = frame;
}


/* Frames that the kernel has sent are free again. */
static void complete(xdp_t *p, smos__xsk_t *x)
{
    uint32_t count = smos__xsk_filled(&x->completion);
    if (!count) return;
    for (; count; count--) {
        uint64_t frame = *smos__xsk_address(&x->completion, x->completion.own++) / p->frame_bytes;
        if (frame < p->frames && p->note[frame].where == SMOS__XSK_SENT) give_back(p, (uint32_t)frame);
    }
    smos__xsk_consumed(&x->completion);
}


static void kick(xdp_t *p, smos__xsk_t *x)
{
    if (x->redo_transmit->count) smos__xsk_publish(&x->transmit, x->redo_transmit);
    uint32_t lost = smos__xsk_kick(x); /* they were counted as sent when they were queued */
    p->port.stats.lost_full += lost;
    p->port.stats.forwarded -= lost <= p->port.stats.forwarded ? lost : 0;
    complete(p, x);
}


static void refill(xdp_t *p, smos__xsk_t *x)
{
    uint32_t room = smos__xsk_room(&x->fill, x->fill.mask + 1);
    uint32_t share = room < p->free_count ? room : p->free_count;
    if (share < REFILL) return;
    smos__xsk_redo_t *redo = x->redo_fill;
    for (uint32_t i = 0; i < share; i++) {
        uint32_t frame = p->free[--p->free_count];
        *smos__xsk_address(&x->fill, x->fill.own++) = (uint64_t)frame * p->frame_bytes;
        __atomic_store_n(&redo->count, i + 1, __ATOMIC_RELEASE);
        p->note[frame] = (smos__xsk_note_t){.where = SMOS__XSK_KERNEL};
    }
    smos__xsk_publish(&x->fill, redo);
    if (smos__xsk_wants_wakeup(&x->fill)) (void)recvfrom(x->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
}


/* 0, or -1: the other end's ring has no room, or its device would not have what is in it (that waits for the device; no more is added to it). */
static int queue(xdp_t *p, smos__xsk_t *x, uint32_t frame, uint64_t address, uint32_t length)
{
    if (x->refused || !smos__xsk_room(&x->transmit, 1)) {
        kick(p, x);
        if (x->refused || !smos__xsk_room(&x->transmit, 1)) return -1;
    }
    *smos__xsk_desc(&x->transmit, x->transmit.own++) = (struct xdp_desc){.addr = address, .len = length};
    __atomic_store_n(&x->redo_transmit->count, x->redo_transmit->count + 1, __ATOMIC_RELEASE);
    p->note[frame].where = SMOS__XSK_SENT;
    return 0;
}


static smos__xsk_t *out_of(xdp_t *p, int end, uint32_t which)
{
    uint32_t count = p->first[end + 1] - p->first[end];
    return &p->socket[p->first[end] + which % count];
}


static void count_unsendable(xdp_t *p, const smos__xsk_t *x)
{
    p->port.stats.lost_refused += x->refused != 0;
    p->port.stats.lost_full += x->refused == 0;
}


/* A copy of the bytes in a frame of our own, queued. 0 or a negative errno. */
static int queue_copy(xdp_t *p, smos__xsk_t *x, const uint8_t *data, uint32_t length)
{
    if (!p->free_count) kick(p, x);
    if (!p->free_count) return -ENOBUFS;
    uint32_t frame = p->free[--p->free_count];
    uint64_t address = (uint64_t)frame * p->frame_bytes;
    memcpy(p->memory + address, data, length);
    if (!queue(p, x, frame, address, length)) return 0;
    p->free[p->free_count++] = frame;
    return -ENOBUFS;
}


static void forward(smos__port_t *port, smos__frame_t *frame)
{
    xdp_t *p = (xdp_t *)port;
    bool handed = frame->flags & SMOS__FRAME_HANDED;
    uint32_t own = frame->token & 0xffffff;
    p->unsettled -= !handed;
    smos__xsk_t *x = out_of(p, !frame->end, handed ? 0 : frame->token >> 24);
    if (frame->len > p->largest) {
        port->stats.lost_size++;
    } else if (handed ? queue_copy(p, x, frame->data, frame->len) : queue(p, x, own, (uint64_t)(frame->data - p->memory), frame->len)) {
        count_unsendable(p, x);
    } else {
        port->stats.forwarded++;
        port->stats.forwarded_bytes += frame->len;
        return;
    }
    if (!handed) give_back(p, own);
}


static void drop(smos__port_t *port, smos__frame_t *frame)
{
    xdp_t *p = (xdp_t *)port;
    if (frame->flags & SMOS__FRAME_HANDED) return;
    p->unsettled--;
    give_back(p, frame->token & 0xffffff);
}


static int send_ours(smos__port_t *port, int end, const uint8_t *data, uint32_t length, const smos__frame_t *like)
{
    (void)like; /* no frame of this port has anything left for a device to do */
    xdp_t *p = (xdp_t *)port;
    if (length < 14 || length > p->largest) return port->stats.unsent++, -EMSGSIZE;
    if (queue_copy(p, out_of(p, end & 1, 0), data, length)) return port->stats.unsent++, -ENOBUFS;
    port->stats.sent++;
    port->stats.sent_bytes += length;
    return 0;
}


/* The receive rings of the process before us are worked off: nothing is held any more. */
static void take_stock(xdp_t *p)
{
    for (uint32_t i = 0; i < p->first[2]; i++)
        if ((int32_t)(p->socket[i].inherited - p->socket[i].receive.own) > 0) return;
    p->inherits = false;
    for (uint32_t i = p->frames; i-- > 0;) {
        if (!p->note[i].held) continue;
        p->note[i].held = 0;
        if (p->note[i].where == SMOS__XSK_FREE) p->free[p->free_count++] = i;
    }
}


/* In this order: what goes out is published before it leaves the receive rings, and those before their frames come round again. While frames wait
 * for their turn, all stay in the receive rings, where whoever takes this process's place finds them. */
static void flush(smos__port_t *port)
{
    xdp_t *p = (xdp_t *)port;
    for (uint32_t i = 0; i < p->first[2]; i++) {
        smos__xsk_t *x = &p->socket[i];
        if (x->redo_transmit->count || x->transmit.own != x->transmit.other) {
            kick(p, x);
            x->transmit.other = __atomic_load_n(x->transmit.consumer, __ATOMIC_ACQUIRE);
        } else {
            complete(p, x);
        }
    }
    if (p->unsettled) return;
    for (uint32_t i = 0; i < p->first[2]; i++) smos__xsk_consumed(&p->socket[i].receive);
    if (p->inherits) take_stock(p);
    for (uint32_t i = 0; i < p->first[2]; i++) refill(p, &p->socket[(i + p->turn) % p->first[2]]);
}


/* Lets go of a frame that ended two processes. */
static void let_go(xdp_t *p, smos__frame_t *frame)
{
    p->port.stats.poison++;
    if (p->fail_open && p->port.ends == 2)
        p->unsettled++, forward(&p->port, frame);
    else
        give_back(p, frame->token & 0xffffff);
}


static int take(xdp_t *p, uint32_t which, smos__frame_t *burst, int max, int64_t now)
{
    smos__xsk_t *x = &p->socket[which];
    smos__xsk_ring_t *r = &x->receive;
    uint8_t end = which >= p->first[1];
    uint32_t filled = smos__xsk_filled(r);
    int n = 0;
    for (; n < max && filled; filled--, r->own++) {
        const struct xdp_desc *d = smos__xsk_desc(r, r->own);
        uint32_t frame = (uint32_t)(d->addr / p->frame_bytes), length = d->len;
        if (frame >= p->frames || d->addr + length > (uint64_t)p->frames * p->frame_bytes) continue;
        smos__xsk_note_t *note = &p->note[frame];
        if (note->where != SMOS__XSK_KERNEL) continue; /* settled by the process before us */
        bool careful = note->tried; /* that process had it in its hands: alone */
        if (careful && n) break;
        uint8_t *data = p->memory + d->addr;
        __builtin_prefetch(p->memory + smos__xsk_desc(r, r->own + 4)->addr % ((uint64_t)p->frames * p->frame_bytes));
        smos__frame_t *f = &burst[n];
        *f = (smos__frame_t){.data = data, .caplen = length, .len = length, .time_ns = now, .linktype = 1, .end = end, .token = frame | which << 24};
        if (note->tried >= TRIES) {
            let_go(p, f);
            continue;
        }
        note->tried++;
        if (smos__complete_checksum(data, length)) {
            p->port.stats.completed++;
            f->flags = SMOS__FRAME_NO_CHECKSUM;
        }
        f->number = ++p->port.stats.packets;
        p->port.stats.bytes += length;
        n++;
        if (careful) {
            r->own++;
            break;
        }
    }
    return n;
}


static int receive(smos__port_t *port, smos__frame_t *burst, int max)
{
    xdp_t *p = (xdp_t *)port;
    uint32_t sockets = p->first[2];
    int64_t now = smos__host_ns();
    int n = 0;
    p->turn = (p->turn + 1) % sockets; /* no socket starves another */
    for (uint32_t i = 0; i < sockets && n < max; i++) {
        int share = (max - n) / (int)(sockets - i);
        if (share > 0) n += take(p, (p->turn + i) % sockets, burst + n, share, now);
    }
    if (port->forward) p->unsettled += (uint32_t)n;
    if (n) return n;
    flush(port);
    port->clear_ns = now; /* whatever comes will be stamped later */
    if (p->busy_poll)
        for (uint32_t i = 0; i < sockets; i++) (void)recvfrom(p->socket[i].fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
    if (now - p->looked_ns > LOOK_NS) {
        p->looked_ns = now;
        for (uint32_t i = 0; i < sockets; i++) smos__packet_clear(p->socket[i].fd);
    }
    port->now_ns = now;
    return 0;
}


/* Passive: a burst is done with when the next is asked for. */
static int receive_only(smos__port_t *port, smos__frame_t *burst, int max)
{
    xdp_t *p = (xdp_t *)port;
    for (uint32_t i = 0; i < p->first[2]; i++) {
        smos__xsk_ring_t *r = &p->socket[i].receive;
        for (uint32_t at = *r->consumer; at != r->own; at++) {
            uint32_t frame = (uint32_t)(smos__xsk_desc(r, at)->addr / p->frame_bytes);
            if (frame < p->frames && p->note[frame].where == SMOS__XSK_KERNEL) give_back(p, frame);
        }
    }
    flush(port);
    return receive(port, burst, max);
}


static void close_port(smos__port_t *port)
{
    xdp_t *p = (xdp_t *)port;
    for (uint32_t i = 0; i < p->first[2]; i++) smos__xsk_unmap(&p->socket[i]);
    if (p->memory) munmap(p->memory, p->bytes);
    if (port->fd >= 0) close(port->fd);
    free(p->free);
    free(p);
}


/* What another process had written and decided, but perhaps not published, is published. */
static void redo(xdp_t *p, smos__xsk_ring_t *r, smos__xsk_redo_t *redo, uint8_t where)
{
    uint32_t count = redo->count <= r->mask + 1 ? redo->count : 0;
    if (count && redo->at == r->own) {
        for (uint32_t i = 0; i < count; i++, r->own++) {
            uint64_t address = where == SMOS__XSK_SENT ? smos__xsk_desc(r, r->own)->addr : *smos__xsk_address(r, r->own);
            if (address / p->frame_bytes < p->frames) p->note[address / p->frame_bytes] = (smos__xsk_note_t){.where = where};
        }
    }
    smos__xsk_publish(r, redo);
}


/* Frames that the receive rings name must not come round before their descriptors are behind us; the others that are free can be used at once: edited
 * packets and those of other workers need them. */
static void take_over(xdp_t *p)
{
    p->inherits = true;
    for (uint32_t i = 0; i < p->first[2]; i++) {
        smos__xsk_t *x = &p->socket[i];
        redo(p, &x->transmit, x->redo_transmit, SMOS__XSK_SENT);
        redo(p, &x->fill, x->redo_fill, SMOS__XSK_KERNEL);
    }
    for (uint32_t i = 0; i < p->frames; i++) p->note[i].held = 0;
    for (uint32_t i = 0; i < p->first[2]; i++) {
        smos__xsk_t *x = &p->socket[i];
        x->inherited = __atomic_load_n(x->receive.producer, __ATOMIC_ACQUIRE);
        for (uint32_t at = x->receive.own; at != x->inherited; at++) {
            uint64_t frame = smos__xsk_desc(&x->receive, at)->addr / p->frame_bytes;
            if (frame < p->frames) p->note[frame].held = 1;
        }
    }
    for (uint32_t i = p->frames; i-- > 0;)
        if (p->note[i].where == SMOS__XSK_FREE && !p->note[i].held) p->free[p->free_count++] = i;
    for (uint32_t i = 0; i < p->first[2]; i++) complete(p, &p->socket[i]);
    take_stock(p);
}


static int open_sockets(xdp_t *p, const smos_xsk_port_t *o)
{
    smos__xsk_redo_t *records = (smos__xsk_redo_t *)(p->memory + (size_t)p->frames * p->frame_bytes);
    for (uint32_t i = 0; i < p->first[2]; i++) {
        smos__xsk_t *x = &p->socket[i];
        *x = (smos__xsk_t){.fd = o->fd[i], .redo_transmit = &records[2 * i], .redo_fill = &records[2 * i + 1]};
        x->receive.mask = o->ring - 1;
        int status = smos__xsk_map(x);
        if (status) return status;
        struct epoll_event event = {.events = EPOLLIN};
        if (epoll_ctl(p->port.fd, EPOLL_CTL_ADD, x->fd, &event) < 0) return errno;
    }
    return 0;
}


smos__port_t *smos__xdp_open(const smos_xsk_port_t *o, char *error)
{
    uint32_t sockets = o->sockets[0] + o->sockets[1];
    bool fits = o->sockets[0] && sockets <= SMOS_XSK_SOCKETS && o->frames && o->frames < 1 << 24 && o->ring && !(o->ring & (o->ring - 1)) && o->frame_bytes >= 2048;
    xdp_t *p = fits ? calloc(1, sizeof *p) : NULL;
    uint32_t *stack = p ? malloc(o->frames * sizeof *stack) : NULL;
    if (!stack) {
        snprintf(error, SMOS__PORT_ERROR, fits ? "out of memory" : "%.15s: these AF_XDP sockets cannot make a port", o->name[0]);
        free(p);
        return NULL;
    }
    bool pair = o->sockets[1];
    *p = (xdp_t){.frames = o->frames, .frame_bytes = o->frame_bytes, .largest = o->mtu + 14 + TAGS, .free = stack, .fail_open = o->fail_open, .busy_poll = o->busy_poll,
                 .first = {0, o->sockets[0], 0}};
    p->port = (smos__port_t){.receive = pair ? receive : receive_only, .close = close_port, .flush = pair ? flush : NULL, .ends = pair ? 2 : 1};
    if (pair) p->port.forward = forward, p->port.drop = drop, p->port.send = send_ours;
    p->bytes = (size_t)o->frames * o->frame_bytes + SMOS__XSK_HEADER + o->frames * sizeof(smos__xsk_note_t);
    p->port.fd = epoll_create1(EPOLL_CLOEXEC);
    p->memory = mmap(NULL, p->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, o->memory_fd, 0);
    int problem = p->port.fd < 0 || p->memory == MAP_FAILED ? errno : 0;
    if (p->memory == MAP_FAILED) p->memory = NULL;
    if (!problem) {
        p->first[2] = sockets;
        p->note = (smos__xsk_note_t *)(p->memory + (size_t)o->frames * o->frame_bytes + SMOS__XSK_HEADER);
        problem = open_sockets(p, o);
    }
    if (!problem) {
        take_over(p);
        flush(&p->port);
        return &p->port;
    }
    snprintf(error, SMOS__PORT_ERROR, "%.15s: the AF_XDP rings cannot be mapped: %s", o->name[0], strerror(problem));
    return close_port(&p->port), NULL;
}
