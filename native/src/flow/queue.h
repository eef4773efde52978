/* queue.h: flows that were begun and not yet confirmed by both ends, oldest first: what is given up first when the table is full.
 *
 * A list by slot, in an array of its own: a flood of SYNs walks through neighbouring entries, and no other flow's record is touched. A flow is
 * on it for as long as its SMOS__FLOW_QUEUED flag is on: until it was confirmed, or its slot is given back.
 */
#ifndef SMOS__QUEUE_H
#define SMOS__QUEUE_H

#include "flow/arena.h"

typedef struct smos__queue_link {
    uint32_t next, prev; /* SMOS__NO_FLOW at the ends */
} smos__queue_link_t;

typedef struct smos__queue {
    smos__queue_link_t *links; /* by slot; owned by the caller, smos__queue_bytes(capacity) */
    uint32_t head, tail;       /* SMOS__NO_FLOW: empty */
} smos__queue_t;

static inline size_t smos__queue_bytes(uint32_t capacity) { return (size_t)capacity * sizeof(smos__queue_link_t); }
void smos__queue_init(smos__queue_t *, smos__queue_link_t *links);
/* All O(1). Push sets the flow's flag, remove clears it. */
void smos__queue_push(smos__queue_t *, smos__arena_t *, uint32_t flow);   /* of one that does not wait */
void smos__queue_remove(smos__queue_t *, smos__arena_t *, uint32_t flow); /* of one that waits */
/* The oldest; it stays, at the front. SMOS__NO_FLOW if there is none. */
static inline uint32_t smos__queue_oldest(const smos__queue_t *q) { return q->head; }
/* The oldest queues again. */
void smos__queue_rotate(smos__queue_t *);

#endif
