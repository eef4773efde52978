/* Timers and burst ends, as modules call them; and calling them back. */
#include <errno.h>
#include <stdlib.h>

#include "shard/api.h"

#define PENDING (UINT64_C(1) << 63) /* the number of a timer that init() set: its place among them */
#define RUN_AT_ONCE 4096 /* due timers called before the next packet; the rest waits for the next turn */


/* Packet time is the packet thread's: what init() sets starts at the commit. */
static int wait_for_commit(smos_box_t *box, const smos__pending_t *p, uint64_t *timer)
{
    if (box->pending_count == SMOS__MAX_PENDING) return -ENOSPC;
    if (box->pending_count == box->pending_room) {
        uint32_t room = box->pending_room ? box->pending_room * 2 : 16;
        smos__pending_t *more = realloc(box->pending, room * sizeof *more);
        if (!more) return -ENOMEM;
        box->pending = more;
        box->pending_room = room;
    }
    if (timer) *timer = PENDING | box->pending_count;
    box->pending[box->pending_count++] = *p;
    return 0;
}


int smos__api_set_timer(smos_engine_t *engine, smos_flow_t flow, int64_t delay_ns, int64_t period_ns, smos_handler_t handler, void *arg, uint64_t *timer)
{
    smos__caller_t c;
    int status = smos__caller(&c, engine);
    if (!status && (!handler || delay_ns < 0 || period_ns < 0 || delay_ns > INT64_MAX / 4 || period_ns > INT64_MAX / 4)) status = -EINVAL;
    if (!status && flow && (c.preparing || smos__flow_find(&c.shard->arena, flow) == SMOS__NO_FLOW)) status = c.preparing ? -EPERM : -ESTALE;
    if (status) return smos__failed(&c, "set_timer", status);
    if (!c.box->active) return smos__failed(&c, "set_timer", wait_for_commit(c.box, &(smos__pending_t){0, delay_ns, period_ns, handler, arg}, timer));
    smos__timer_t t = {.due_ns = c.shard->now_ns + delay_ns, .period_ns = period_ns, .flow = flow, .box = c.box, .call = handler, .arg = arg};
    return smos__failed(&c, "set_timer", smos__timers_set(&c.shard->timers, &t, timer));
}


int smos__api_cancel_timer(smos_engine_t *engine, uint64_t timer)
{
    smos__caller_t c;
    int status = smos__caller(&c, engine);
    smos__pending_t *p = status || !(timer & PENDING) || (timer & ~PENDING) >= c.box->pending_count ? NULL : &c.box->pending[timer & ~PENDING];
    if (p) timer = p->number;
    if (!status && p && !c.box->active) {
        status = p->call ? 0 : -ENOENT;
        p->call = NULL;
    } else if (!status) {
        status = smos__timers_cancel(&c.shard->timers, c.box, timer);
    }
    return smos__failed(&c, "cancel_timer", status);
}


int smos__api_at_burst_end(smos_engine_t *engine, smos_handler_t handler, void *arg)
{
    smos__caller_t c;
    int status = smos__caller(&c, engine);
    if (status) return smos__failed(&c, "at_burst_end", status);
    c.box->burst_end = handler;
    c.box->burst_arg = arg;
    return 0;
}


void smos__timers_run(smos_shard_t *s)
{
    smos__timer_t t;
    uint64_t number;
    for (int i = 0; i < RUN_AT_ONCE && smos__timers_due(&s->timers, s->now_ns, &t, &number); i++) {
        uint32_t flow = t.flow ? smos__flow_find(&s->arena, t.flow) : SMOS__NO_FLOW;
        if (t.flow && flow == SMOS__NO_FLOW) { /* it ended with its flow */
            if (number) smos__timers_cancel(&s->timers, t.box, number);
            continue;
        }
        smos_call_t call = {.event = SMOS_TIMER, .id = SMOS_TIMER, .time_ns = s->now_ns, .arg = t.arg};
        smos__events_call(&s->events, t.box, flow, t.call, &call);
    }
}


void smos__timers_arm(smos_shard_t *s, smos_box_t *box)
{
    for (uint32_t i = 0; i < box->pending_count; i++) {
        smos__pending_t *p = &box->pending[i];
        if (!p->call) continue;
        smos__timer_t t = {.due_ns = s->now_ns + p->delay_ns, .period_ns = p->period_ns, .box = box, .call = p->call, .arg = p->arg};
        smos__timers_set(&s->timers, &t, &p->number); /* only memory could fail */
    }
}
