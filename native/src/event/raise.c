/* Calling handlers: a walk over the routes of one event. */
#include <errno.h>
#include <string.h>
#ifdef __x86_64__
#include <x86intrin.h>
#else
#include <time.h>
#endif

#include "event/events.h"

#define CALLED_BACK 15 /* where timers and burst ends are counted, beside the events */


static uint64_t cycles(void)
{
#ifdef __x86_64__
    return __rdtsc();
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
#endif
}


/* Takes the bracket, if a box needs it and the burst has it not yet. */
static inline void enter(smos__events_t *ev, bool embedded)
{
    if (embedded && !ev->entered && ev->enter) {
        ev->entered = true;
        ev->enter(ev->bracket);
    }
}


/* `counted` is the counter of the event; one call in SMOS__CYCLE_SAMPLE is timed. */
static inline void call_handler(smos_box_t *box, uint64_t *counted, smos_handler_t handler, const smos_call_t *call)
{
    if (__builtin_expect(++*counted % SMOS__CYCLE_SAMPLE != 0, 1)) {
        handler(box->self, call);
    } else {
        uint64_t start = cycles();
        handler(box->self, call);
        box->stats.cycles += (cycles() - start) * SMOS__CYCLE_SAMPLE;
    }
}


static bool happened(smos__events_t *ev, const smos__route_t *r, const smos_call_t *call)
{
    const smos_box_t *box = r->box;
    if (!box->definitions[r->id - SMOS_USER_EVENT].users) return false; /* removed */
    if (r->kind == SMOS__RAISED) {
        for (int i = 0; i < ev->raised_count; i++)
            if (ev->raised[i] == r->id) return true;
        return false;
    }
    if (!r->depth) ev->raised_count = 0;
    ev->predicate = r;
    int yes = r->call.predicate(box->self, call);
    ev->predicate = NULL;
    return yes;
}


static void set_place(const smos__route_t *r, uint32_t flow, smos_call_t *call)
{
    const smos_box_t *box = r->box;
    const smos__socket_t *socket = r->socket;
    if (flow != SMOS__NO_FLOW) {
        call->state = box->state ? box->state + (size_t)flow * box->module.state_size : NULL;
        call->context = socket->watches ? socket->watches[flow].context : NULL;
    } else {
        call->state = NULL;
        call->context = socket->context;
    }
}


_Static_assert(offsetof(smos_call_t, arg) - offsetof(smos_call_t, id) == offsetof(smos__route_t, arg) - offsetof(smos__route_t, id) &&
               offsetof(smos_call_t, sock) - offsetof(smos_call_t, id) == offsetof(smos__route_t, number) - offsetof(smos__route_t, id), "copied in one piece");

/* Stops where a handler drops the packet. */
static void walk(smos__events_t *ev, const smos__route_t *r, const smos__route_t *end, uint32_t flow, smos_call_t *call)
{
    const uint8_t side = (uint8_t)(1 << call->side), hook = call->hook ? call->hook : 0xff;
    const unsigned event = call->event;
    ev->placed = NULL;
    for (; r < end; r++) {
        if (!(r->sides & side) || !(r->hooks & hook || !r->hooks) || (ev->closed && r->socket->closed)) {
            r += r->skip;
            continue;
        }
        ev->current = r->box;
        ev->crumb->module = (uint32_t)r->slot + 1;
        memcpy(&call->id, &r->id, offsetof(smos_call_t, context) - offsetof(smos_call_t, id));
        if (r->socket != ev->placed) {
            set_place(r, flow, call);
            ev->placed = r->socket;
        }
        if (r->kind == SMOS__CALL)
            call_handler(r->box, &r->box->stats.event_calls[event], r->call.handler, call);
        else if (!happened(ev, r, call))
            r += r->skip;
        if (ev->dropped && ev->in_packet) {
            r->box->stats.drops++;
            break;
        }
    }
    ev->current = NULL;
    ev->crumb->module = 0;
}


/* The usual case, said shorter: one handler, which is wanted here. */
static void call_only(smos__events_t *ev, const smos__route_t *r, uint32_t flow, smos_call_t *call)
{
    smos_box_t *box = r->box; /* r may be gone after the call: the handler may move the flow to another set */
    ev->current = box;
    ev->crumb->module = (uint32_t)r->slot + 1;
    memcpy(&call->id, &r->id, offsetof(smos_call_t, context) - offsetof(smos_call_t, id));
    set_place(r, flow, call);
    call_handler(box, &box->stats.event_calls[call->event], r->call.handler, call);
    ev->current = NULL;
    ev->crumb->module = 0;
    if (ev->dropped && ev->in_packet) box->stats.drops++;
}


void smos__events_raise(smos__events_t *ev, uint32_t flow, smos_call_t *call)
{
    const smos__flow_t *f = &ev->arena->hot[flow];
    uint16_t index = f->set;
    smos__set_t *s = &ev->sets.set[index];
    const unsigned event = call->event, first = s->first[event];
    call->flow = smos__flow_handle(ev->arena, flow);
    call->tuple = &f->tuple;
    call->existing = (f->flags & SMOS__FLOW_EXISTING) / SMOS__FLOW_EXISTING;
    ev->crumb->flow = call->flow;
    enter(ev, s->embedded);
    if (s->only & SMOS_BIT(event) && !ev->closed) {
        call_only(ev, &s->routes[first], flow, call);
        return;
    }
    const smos__route_t *routes = call->packet && call->packet->from == SMOS_SERVER ? s->back : s->routes;
    s->refs++; /* a handler may move the flow to another set */
    walk(ev, routes + first, routes + s->first[event + 1], flow, call);
    smos__set_release(&ev->sets, index);
}


/* The sockets as they are now, in chain order: handlers may open and close some while they are called one after the other. */
typedef struct chain {
    const smos__socket_t *socket[SMOS_MAX_MODULES];
    int count;
} chain_t;


static chain_t chain_of(const smos__events_t *ev)
{
    chain_t c;
    c.count = ev->count;
    for (int i = 0; i < c.count; i++) c.socket[i] = ev->sockets[ev->order[i]];
    return c;
}


/* Packets without a flow: what the socket's template wants. */
static void raise_template(smos__events_t *ev, const smos__socket_t *socket, smos_call_t *call)
{
    uint16_t index = socket->own_set;
    smos__set_t *s = &ev->sets.set[index];
    if (!(s->mask[0][call->side] & SMOS_BIT(call->event)) && !(s->mask[SMOS_SENDER][call->side] & SMOS_BIT(call->event))) return;
    s->refs++;
    enter(ev, s->embedded);
    walk(ev, s->routes + s->first[call->event], s->routes + s->first[call->event + 1], SMOS__NO_FLOW, call);
    smos__set_release(&ev->sets, index);
}


void smos__events_raise_orphan(smos__events_t *ev, smos_call_t *call, const uint8_t *ip, uint32_t length, uint32_t captured)
{
    const chain_t chain = chain_of(ev);
    for (int i = 0; i < chain.count && !ev->dropped; i++) {
        const smos__socket_t *socket = chain.socket[i];
        if (socket->closed || socket->type != SMOS_STREAM || (socket->orphan_filter && !smos__filter_match(socket->orphan_filter, ip, length, captured))) continue;
        raise_template(ev, socket, call);
    }
}


void smos__events_raise_raw(smos__events_t *ev, smos_call_t *call, const uint8_t *ip, uint32_t length, uint32_t captured)
{
    const chain_t chain = chain_of(ev);
    for (int i = 0; i < chain.count && !ev->dropped; i++) {
        const smos__socket_t *socket = chain.socket[i];
        if (socket->closed || socket->type != SMOS_RAW || (!ip && !(socket->frames && !socket->filter))) continue;
        if (socket->filter && !smos__filter_match(socket->filter, ip, length, captured)) continue;
        raise_template(ev, socket, call);
    }
}


void smos__events_call(smos__events_t *ev, smos_box_t *box, uint32_t flow, smos_handler_t handler, smos_call_t *call)
{
    smos_box_t *before = ev->current;
    enter(ev, box->embedded);
    ev->current = box;
    if (flow != SMOS__NO_FLOW) {
        call->flow = smos__flow_handle(ev->arena, flow);
        call->tuple = &ev->arena->hot[flow].tuple;
        call->state = box->state ? box->state + (size_t)flow * box->module.state_size : NULL;
        if (box->sockets[0] && box->sockets[0]->watches) call->context = box->sockets[0]->watches[flow].context;
    }
    ev->crumb->module = (uint32_t)(box->sockets[0] && box->sockets[0]->slot >= 0 ? box->sockets[0]->slot + 1 : 0);
    ev->crumb->flow = call->flow;
    call_handler(box, &box->stats.event_calls[CALLED_BACK], handler, call);
    ev->crumb->module = 0;
    ev->current = before;
}


int smos__events_raise_event(smos__events_t *ev, const smos_box_t *box, uint32_t event)
{
    const smos__definition_t *d = smos__definition(box, event);
    if (!d) return -ENOENT;
    if (!ev->predicate || ev->predicate->socket->box != box || ev->predicate->id != d->parent || d->predicate) return -EPERM;
    for (int i = 0; i < ev->raised_count; i++)
        if (ev->raised[i] == event) return 0;
    if (ev->raised_count == SMOS__MAX_RAISED) return -ENOSPC;
    ev->raised[ev->raised_count++] = event;
    return 0;
}


void smos__events_end_burst(smos__events_t *ev, int64_t now_ns)
{
    for (int i = 0; i < ev->count; i++) { /* of each module the socket that it cannot close: the others stand behind it */
        const smos__socket_t *socket = ev->sockets[ev->order[i]];
        smos_box_t *box = socket->box;
        if (socket != box->sockets[0] || !box->burst_end) continue;
        smos_call_t call = {.event = SMOS_BURST_END, .id = SMOS_BURST_END, .time_ns = now_ns, .arg = box->burst_arg};
        smos__events_call(ev, box, SMOS__NO_FLOW, box->burst_end, &call);
    }
    while (ev->closed) {
        smos__socket_t *next = ev->closed->next;
        smos__socket_free(ev->closed);
        ev->closed = next;
    }
    if (ev->entered) {
        ev->entered = false;
        ev->leave(ev->bracket);
    }
}
