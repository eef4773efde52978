#include "flow/queue.h"


void smos__queue_init(smos__queue_t *q, smos__queue_link_t *links)
{
    *q = (smos__queue_t){.links = links, .head = SMOS__NO_FLOW, .tail = SMOS__NO_FLOW};
}


static void append(smos__queue_t *q, uint32_t flow)
{
    q->links[flow] = (smos__queue_link_t){.next = SMOS__NO_FLOW, .prev = q->tail};
    if (q->tail == SMOS__NO_FLOW)
        q->head = flow;
    else
        q->links[q->tail].next = flow;
    q->tail = flow;
}


static void take_out(smos__queue_t *q, uint32_t flow)
{
    const smos__queue_link_t *l = &q->links[flow];
    if (l->prev == SMOS__NO_FLOW)
        q->head = l->next;
    else
        q->links[l->prev].next = l->next;
    if (l->next == SMOS__NO_FLOW)
        q->tail = l->prev;
    else
        q->links[l->next].prev = l->prev;
}


void smos__queue_push(smos__queue_t *q, smos__arena_t *a, uint32_t flow)
{
    a->hot[flow].flags |= SMOS__FLOW_QUEUED;
    append(q, flow);
}


void smos__queue_remove(smos__queue_t *q, smos__arena_t *a, uint32_t flow)
{
    a->hot[flow].flags &= (uint16_t)~SMOS__FLOW_QUEUED;
    take_out(q, flow);
}


void smos__queue_rotate(smos__queue_t *q)
{
    uint32_t flow = q->head;
    if (flow == q->tail) return;
    take_out(q, flow);
    append(q, flow);
}
