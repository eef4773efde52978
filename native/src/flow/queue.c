#include "flow/queue.h"


static bool waiting(const smos__arena_t *a, smos__queue_entry_t e)
{
    const smos__flow_t *f = &a->hot[e.flow];
    return f->flags & SMOS__FLOW_QUEUED && f->class_ != SMOS__CLASS_FREE && (f->generation & ~1u) == e.generation;
}


uint32_t smos__queue_entries(uint32_t capacity)
{
    uint32_t n = 64;
    while (n < capacity && n < 1u << 31) n *= 2;
    return n;
}


void smos__queue_init(smos__queue_t *q, smos__queue_entry_t *entries, uint32_t capacity)
{
    *q = (smos__queue_t){.entries = entries, .mask = smos__queue_entries(capacity) - 1};
}


void smos__queue_push(smos__queue_t *q, smos__arena_t *a, uint32_t flow)
{
    /* Full of entries that were passed by further on: the front makes room. Two steps a push keep up with one push a step. */
    for (int steps = 0; q->tail - q->head > q->mask / 2 && steps < 2; steps++) {
        smos__queue_entry_t front = q->entries[q->head & q->mask];
        if (waiting(a, front)) {
            if (q->tail - q->head <= q->mask) break;
            q->entries[q->tail++ & q->mask] = front; /* no room at all: it has to queue again */
        }
        q->head++;
    }
    a->hot[flow].flags |= SMOS__FLOW_QUEUED;
    q->entries[q->tail++ & q->mask] = (smos__queue_entry_t){flow, a->hot[flow].generation & ~1u};
}


uint32_t smos__queue_oldest(smos__queue_t *q, const smos__arena_t *a)
{
    for (; q->head != q->tail; q->head++) {
        smos__queue_entry_t front = q->entries[q->head & q->mask];
        if (waiting(a, front)) return front.flow;
    }
    return SMOS__NO_FLOW;
}


void smos__queue_rotate(smos__queue_t *q)
{
    smos__queue_entry_t front = q->entries[q->head++ & q->mask];
    q->entries[q->tail++ & q->mask] = front;
}
