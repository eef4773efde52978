#include "flow/timer.h"


void smos__wheel_init(smos__wheel_t *w)
{
    for (int i = 0; i < SMOS__WHEEL_BUCKETS; i++) w->head[i] = SMOS__NO_FLOW;
    w->tick = 0;
    w->started = 0;
}


void smos__wheel_start(smos__wheel_t *w, int64_t now_ns)
{
    w->tick = now_ns / SMOS__SECOND;
    w->started = 1;
}


void smos__wheel_clear(smos__wheel_t *w, smos__arena_t *a, uint32_t index)
{
    smos__flow_cold_t *c = &a->cold[index];
    if (c->bucket == SMOS__NO_FLOW) return;
    if (c->timer_prev == SMOS__NO_FLOW)
        w->head[c->bucket] = c->timer_next;
    else
        a->cold[c->timer_prev].timer_next = c->timer_next;
    if (c->timer_next != SMOS__NO_FLOW) a->cold[c->timer_next].timer_prev = c->timer_prev;
    c->bucket = SMOS__NO_FLOW;
}


void smos__wheel_set(smos__wheel_t *w, smos__arena_t *a, uint32_t index, int64_t deadline_ns)
{
    smos__flow_cold_t *c = &a->cold[index];
    smos__wheel_clear(w, a, index);
    int64_t second = deadline_ns / SMOS__SECOND + 1;
    if (second <= w->tick) second = w->tick + 1;
    if (second >= w->tick + SMOS__WHEEL_BUCKETS) second = w->tick + SMOS__WHEEL_BUCKETS - 1;
    uint32_t bucket = (uint32_t)((uint64_t)second % SMOS__WHEEL_BUCKETS);
    c->bucket = bucket;
    c->timer_prev = SMOS__NO_FLOW;
    c->timer_next = w->head[bucket];
    if (c->timer_next != SMOS__NO_FLOW) a->cold[c->timer_next].timer_prev = index;
    w->head[bucket] = index;
}


uint32_t smos__wheel_pop(smos__wheel_t *w, smos__arena_t *a, int64_t now_ns)
{
    int64_t now = now_ns / SMOS__SECOND;
    if (!w->started) return SMOS__NO_FLOW;
    /* After a jump ahead one turn of the wheel has seen every bucket. */
    if (now - w->tick > SMOS__WHEEL_BUCKETS) w->tick = now - SMOS__WHEEL_BUCKETS;
    while (w->tick < now) {
        uint32_t index = w->head[(uint64_t)(w->tick + 1) % SMOS__WHEEL_BUCKETS];
        if (index != SMOS__NO_FLOW) {
            smos__wheel_clear(w, a, index);
            return index;
        }
        w->tick++;
    }
    return SMOS__NO_FLOW;
}


void smos__queue_init(smos__queue_t *q)
{
    q->head = q->tail = SMOS__NO_FLOW;
    q->count = 0;
}


void smos__queue_push(smos__queue_t *q, smos__arena_t *a, uint32_t index)
{
    smos__flow_cold_t *c = &a->cold[index];
    c->queue_next = SMOS__NO_FLOW;
    c->queue_prev = q->tail;
    if (q->tail == SMOS__NO_FLOW)
        q->head = index;
    else
        a->cold[q->tail].queue_next = index;
    q->tail = index;
    q->count++;
}


void smos__queue_remove(smos__queue_t *q, smos__arena_t *a, uint32_t index)
{
    smos__flow_cold_t *c = &a->cold[index];
    if (c->queue_prev == SMOS__NO_FLOW)
        q->head = c->queue_next;
    else
        a->cold[c->queue_prev].queue_next = c->queue_next;
    if (c->queue_next == SMOS__NO_FLOW)
        q->tail = c->queue_prev;
    else
        a->cold[c->queue_next].queue_prev = c->queue_prev;
    q->count--;
}
