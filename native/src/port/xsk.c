/* One AF_XDP socket: its rings mapped, its transmission set off. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "port/af_xdp.h"

#ifndef SOL_XDP
#define SOL_XDP 283
#endif
#define KICKS 16 /* the kernel sends 32 frames a call in copy mode */


static int map(int fd, smos__xsk_ring_t *r, const struct xdp_ring_offset *o, uint64_t page, uint32_t entries, size_t entry_bytes)
{
    r->bytes = o->desc + entries * entry_bytes;
    r->map = mmap(NULL, r->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, (off_t)page);
    if (r->map == MAP_FAILED) return r->map = NULL, errno;
    uint8_t *at = r->map;
    r->producer = (uint32_t *)(at + o->producer);
    r->consumer = (uint32_t *)(at + o->consumer);
    r->flags = (uint32_t *)(at + o->flags);
    r->entries = at + o->desc;
    r->mask = entries - 1;
    return 0;
}


int smos__xsk_map(smos__xsk_t *x)
{
    struct xdp_mmap_offsets o;
    socklen_t size = sizeof o;
    if (getsockopt(x->fd, SOL_XDP, XDP_MMAP_OFFSETS, &o, &size) < 0) return errno;
    if (size != sizeof o) return ENOSYS; /* before Linux 5.4: no flags */
    uint32_t entries = x->receive.mask + 1;
    int status = map(x->fd, &x->receive, &o.rx, XDP_PGOFF_RX_RING, entries, sizeof(struct xdp_desc));
    if (!status) status = map(x->fd, &x->transmit, &o.tx, XDP_PGOFF_TX_RING, entries, sizeof(struct xdp_desc));
    if (!status) status = map(x->fd, &x->fill, &o.fr, XDP_UMEM_PGOFF_FILL_RING, entries, sizeof(uint64_t));
    if (!status) status = map(x->fd, &x->completion, &o.cr, XDP_UMEM_PGOFF_COMPLETION_RING, entries, sizeof(uint64_t));
    if (status) return status;
    x->fill.own = *x->fill.producer;
    x->fill.other = *x->fill.consumer;
    x->transmit.own = *x->transmit.producer;
    x->transmit.other = *x->transmit.consumer;
    x->receive.own = x->receive.other = *x->receive.consumer;
    x->completion.own = x->completion.other = *x->completion.consumer;
    return 0;
}


void smos__xsk_unmap(smos__xsk_t *x)
{
    smos__xsk_ring_t *rings[] = {&x->receive, &x->transmit, &x->fill, &x->completion};
    for (int i = 0; i < 4; i++)
        if (rings[i]->map) munmap(rings[i]->map, rings[i]->bytes);
}


uint32_t smos__xsk_kick(smos__xsk_t *x)
{
    uint32_t lost = 0;
    for (int i = 0; i < KICKS && smos__xsk_wants_wakeup(&x->transmit); i++) {
        x->refused = 0;
        if (sendto(x->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) >= 0) break;
        if (errno == EBUSY) { /* one was taken from the ring, and dropped by the device's queue */
            lost++;
        } else if (errno == EAGAIN || errno == ENOBUFS) {
            uint32_t before = x->transmit.other;
            x->transmit.other = __atomic_load_n(x->transmit.consumer, __ATOMIC_ACQUIRE);
            if (x->transmit.other == before) break; /* no headway: the next burst tries again */
        } else if (errno != EINTR) {
            x->refused = errno;
            break;
        }
        if (__atomic_load_n(x->transmit.consumer, __ATOMIC_ACQUIRE) == x->transmit.own) break;
    }
    return lost;
}
