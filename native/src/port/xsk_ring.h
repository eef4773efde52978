/* xsk_ring.h: the four rings of an AF_XDP socket (Documentation/networking/af_xdp.rst), each with one producer and one consumer, one of them the
 * kernel. Positions are counts that only grow and wrap at 2^32. What a worker has not published is not lost with it: see xsk_redo_t.
 *
 * Internal to src/port.
 */
#ifndef SMOS__XSK_RING_H
#define SMOS__XSK_RING_H

#include <linux/if_xdp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct smos__xsk_ring {
    uint32_t *producer, *consumer, *flags; /* shared with the kernel */
    void *entries;                         /* uint64_t addresses (fill, completion) or struct xdp_desc (receive, transmit) */
    uint32_t mask;
    uint32_t own, other; /* our position, not published yet, and the kernel's as last seen */
    void *map;
    size_t bytes;
} smos__xsk_ring_t;

/* In shared memory, per ring that we produce: entries behind `at` that are written and decided, but perhaps not published. */
typedef struct smos__xsk_redo {
    uint32_t at, count;
} smos__xsk_redo_t;

static inline uint64_t *smos__xsk_address(const smos__xsk_ring_t *r, uint32_t at) { return (uint64_t *)r->entries + (at & r->mask); }
static inline struct xdp_desc *smos__xsk_desc(const smos__xsk_ring_t *r, uint32_t at) { return (struct xdp_desc *)r->entries + (at & r->mask); }

/* Of a ring that we produce: free entries, at least `wanted` if there are so many. */
static inline uint32_t smos__xsk_room(smos__xsk_ring_t *r, uint32_t wanted)
{
    uint32_t room = r->mask + 1 - (r->own - r->other);
    if (room >= wanted) return room;
    r->other = __atomic_load_n(r->consumer, __ATOMIC_ACQUIRE);
    return r->mask + 1 - (r->own - r->other);
}

/* Of a ring that we consume: entries that we have not taken. */
static inline uint32_t smos__xsk_filled(smos__xsk_ring_t *r)
{
    if (r->other == r->own) r->other = __atomic_load_n(r->producer, __ATOMIC_ACQUIRE);
    return r->other - r->own;
}

static inline void smos__xsk_produced(smos__xsk_ring_t *r) { __atomic_store_n(r->producer, r->own, __ATOMIC_RELEASE); }
static inline void smos__xsk_publish(smos__xsk_ring_t *r, smos__xsk_redo_t *redo)
{
    smos__xsk_produced(r);
    __atomic_store_n(&redo->count, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&redo->at, r->own, __ATOMIC_RELEASE);
}

static inline void smos__xsk_consumed(smos__xsk_ring_t *r) { __atomic_store_n(r->consumer, r->own, __ATOMIC_RELEASE); }
static inline bool smos__xsk_wants_wakeup(const smos__xsk_ring_t *r) { return __atomic_load_n(r->flags, __ATOMIC_RELAXED) & XDP_RING_NEED_WAKEUP; }

#endif
