/* queue.h: flows that were begun and not yet confirmed by both ends, oldest first: what is given up first when the table is full.
 *
 * A ring of slots and incarnations. Leaving it costs nothing: an entry whose flow is gone or was confirmed (its SMOS__FLOW_QUEUED flag is
 * off) is passed over when it comes to the front. So no packet touches another flow's memory for it.
 */
#ifndef SMOS__QUEUE_H
#define SMOS__QUEUE_H

#include "flow/arena.h"

typedef struct smos__queue_entry {
    uint32_t flow;
    uint32_t generation; /* of the slot, without the mark of being written */
} smos__queue_entry_t;

typedef struct smos__queue {
    smos__queue_entry_t *entries; /* owned by the caller, smos__queue_entries(capacity) of them */
    uint32_t mask;
    uint32_t head, tail; /* free running */
} smos__queue_t;

uint32_t smos__queue_entries(uint32_t capacity); /* a power of two */
void smos__queue_init(smos__queue_t *, smos__queue_entry_t *entries, uint32_t capacity);
void smos__queue_push(smos__queue_t *, smos__arena_t *, uint32_t flow); /* sets the flag */
/* The oldest that is still waiting; it stays, at the front. SMOS__NO_FLOW if there is none. */
uint32_t smos__queue_oldest(smos__queue_t *, const smos__arena_t *);
/* What smos__queue_oldest has just found at the front queues again. */
void smos__queue_rotate(smos__queue_t *);

#endif
