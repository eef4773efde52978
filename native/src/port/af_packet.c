/* What both kinds of packet rings share: transmission, tags, counters. */
#include "port/af_packet.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>


int64_t smos__host_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}


uint8_t *smos__vlan_back(uint8_t *data, uint16_t tpid, uint16_t tci)
{
    memmove(data - 4, data, 12);
    data[8] = (uint8_t)(tpid >> 8), data[9] = (uint8_t)tpid;
    data[10] = (uint8_t)(tci >> 8), data[11] = (uint8_t)tci;
    return data - 4;
}


void smos__packet_clear(int fd)
{
    int pending;
    socklen_t size = sizeof pending;
    (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &pending, &size);
}


void smos__transmit_queue(smos__transmit_t *t, const uint8_t *data, uint32_t length, const smos__offload_t *o, bool ours)
{
    if (t->count == SMOS__BURST) smos__transmit_flush(t);
    struct virtio_net_hdr *h = &t->headers[t->count];
    if (o)
        *h = (struct virtio_net_hdr){.flags = o->flags & SMOS__OFFLOAD_PARTIAL, .gso_type = o->gso_type, .hdr_len = o->hdr_len, .gso_size = o->gso_size,
                                     .csum_start = o->csum_start, .csum_offset = o->csum_offset};
    else
        memset(h, 0, sizeof *h);
    t->data[t->count] = data;
    t->lengths[t->count] = length;
    t->ours[t->count] = ours;
    t->count++;
}


static void count_lost(smos__transmit_t *t, int i, int error)
{
    smos__port_stats_t *s = t->stats;
    if (t->ours[i])
        s->unsent++;
    else if (error == EAGAIN || error == ENOBUFS || error == ENOMEM)
        s->lost_full++;
    else if (error == EMSGSIZE)
        s->lost_size++;
    else
        s->lost_refused++;
}


static void count_sent(smos__transmit_t *t, int i)
{
    smos__port_stats_t *s = t->stats;
    if (t->ours[i]) {
        s->sent++;
        s->sent_bytes += t->lengths[i];
    } else {
        s->forwarded++;
        s->forwarded_bytes += t->lengths[i];
    }
}


void smos__transmit_flush(smos__transmit_t *t)
{
    struct mmsghdr messages[SMOS__BURST];
    struct iovec parts[SMOS__BURST][2];
    for (int i = 0; i < t->count; i++) {
        parts[i][0] = (struct iovec){&t->headers[i], sizeof t->headers[i]};
        parts[i][1] = (struct iovec){(void *)(uintptr_t)t->data[i], t->lengths[i]};
        messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = parts[i], .msg_iovlen = 2}};
    }
    for (int at = 0; at < t->count;) {
        int sent = sendmmsg(t->fd, messages + at, (unsigned)(t->count - at), MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR) continue;
        for (int i = 0; i < sent; i++) count_sent(t, at++);
        if (sent < 0) count_lost(t, at, errno), at++; /* the first of them; the others have their own try */
    }
    t->count = 0;
}
