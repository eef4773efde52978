/* Calling handlers: a walk over the routes of one event. */
#include <errno.h>
#ifdef __x86_64__
#include <x86intrin.h>
#else
#include <time.h>
#endif

#include "event/events.h"


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


static inline void enter(smos__events_t *ev, smos_box_t *box)
{
    if (box->embedded && !ev->entered && ev->enter) {
        ev->entered = true;
        ev->enter(ev->bracket);
    }
    ev->current = box;
}


static inline void call_handler(smos_box_t *box, smos_handler_t handler, const smos_call_t *call)
{
    if (box->stats.calls++ % SMOS__CYCLE_SAMPLE) {
        handler(box->self, call);
    } else {
        uint64_t start = cycles();
        handler(box->self, call);
        box->stats.cycles += (cycles() - start) * SMOS__CYCLE_SAMPLE;
    }
}


static bool happened(smos__events_t *ev, const smos__route_t *r, const smos_call_t *call)
{
    const smos_box_t *box = r->socket->box;
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


/* Returns false when a handler dropped the packet. */
static bool walk(smos__events_t *ev, const smos__route_t *routes, int begin, int end, uint32_t flow, smos_call_t *call)
{
    const uint8_t side = (uint8_t)(1 << call->side), hook = call->hook;
    for (int i = begin; i < end; i++) {
        const smos__route_t *r = &routes[i];
        if (!(r->sides & side) || (hook && !(r->hooks & hook)) || r->socket->closed) {
            i += r->skip;
            continue;
        }
        smos__socket_t *socket = r->socket;
        smos_box_t *box = socket->box;
        enter(ev, box);
        ev->crumb->module = (uint32_t)r->slot + 1;
        call->sock = socket->number;
        call->id = r->id;
        call->arg = r->arg;
        if (flow != SMOS__NO_FLOW) {
            call->state = box->state ? box->state + (size_t)flow * box->module.state_size : NULL;
            call->context = socket->watches ? socket->watches[flow].context : NULL;
        } else {
            call->state = NULL;
            call->context = socket->context;
        }
        if (r->kind == SMOS__CALL) {
            box->stats.event_calls[call->event]++;
            call_handler(box, r->call.handler, call);
        } else if (!happened(ev, r, call)) {
            i += r->skip;
        }
        if (ev->dropped && ev->in_packet) {
            box->stats.drops++;
            break;
        }
    }
    ev->current = NULL;
    ev->crumb->module = 0;
    return !(ev->dropped && ev->in_packet);
}


void smos__events_raise(smos__events_t *ev, uint32_t flow, smos_call_t *call)
{
    smos__flow_t *f = &ev->arena->hot[flow];
    uint16_t index = f->set;
    smos__set_t *s = &ev->sets.set[index];
    unsigned event = call->event;
    call->flow = smos__flow_handle(ev->arena, flow);
    call->tuple = &f->tuple;
    call->existing = f->flags & SMOS__FLOW_EXISTING ? 1 : 0;
    ev->crumb->flow = call->flow;
    s->refs++; /* a handler may move the flow to another set */
    if (!(call->packet && call->packet->from == SMOS_SERVER)) {
        walk(ev, s->routes, s->first[event], s->first[event + 1], flow, call);
    } else {
        for (int k = s->segment[event + 1]; k-- > s->segment[event];)
            if (!walk(ev, s->routes, s->segments[k].begin, s->segments[k].end, flow, call)) break;
    }
    smos__set_release(&ev->sets, index);
}


/* Packets without a flow: what the socket's template wants. */
static void raise_template(smos__events_t *ev, const smos__socket_t *socket, smos_call_t *call)
{
    uint16_t index = socket->own_set;
    smos__set_t *s = &ev->sets.set[index];
    if (!(s->mask[0][call->side] & SMOS_BIT(call->event)) && !(s->mask[SMOS_SENDER][call->side] & SMOS_BIT(call->event))) return;
    s->refs++;
    walk(ev, s->routes, s->first[call->event], s->first[call->event + 1], SMOS__NO_FLOW, call);
    smos__set_release(&ev->sets, index);
}


void smos__events_raise_orphan(smos__events_t *ev, smos_call_t *call, const uint8_t *ip, uint32_t length, uint32_t captured)
{
    for (int i = 0; i < ev->count && !ev->dropped; i++) {
        const smos__socket_t *socket = ev->sockets[ev->order[i]];
        if (socket->type != SMOS_STREAM || (socket->orphan_filter && !smos__filter_match(socket->orphan_filter, ip, length, captured))) continue;
        raise_template(ev, socket, call);
    }
}


void smos__events_raise_raw(smos__events_t *ev, smos_call_t *call, const uint8_t *ip, uint32_t length, uint32_t captured)
{
    for (int i = 0; i < ev->count && !ev->dropped; i++) {
        const smos__socket_t *socket = ev->sockets[ev->order[i]];
        if (socket->type != SMOS_RAW || (!ip && !(socket->frames && !socket->filter))) continue;
        if (socket->filter && !smos__filter_match(socket->filter, ip, length, captured)) continue;
        raise_template(ev, socket, call);
    }
}


void smos__events_call(smos__events_t *ev, smos_box_t *box, uint32_t flow, smos_handler_t handler, smos_call_t *call)
{
    smos_box_t *before = ev->current;
    enter(ev, box);
    if (flow != SMOS__NO_FLOW) {
        call->flow = smos__flow_handle(ev->arena, flow);
        call->tuple = &ev->arena->hot[flow].tuple;
        call->state = box->state ? box->state + (size_t)flow * box->module.state_size : NULL;
        if (box->sockets[0] && box->sockets[0]->watches) call->context = box->sockets[0]->watches[flow].context;
    }
    ev->crumb->module = (uint32_t)(box->sockets[0] && box->sockets[0]->slot >= 0 ? box->sockets[0]->slot + 1 : 0);
    ev->crumb->flow = call->flow;
    call_handler(box, handler, call);
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
    for (int i = 0; i < ev->count; i++) {
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
