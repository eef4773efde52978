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


/* Takes the bracket, if a module needs it and the burst has it not yet. */
static inline void take_bracket(smos__events_t *ev, bool needed)
{
    if (!needed || ev->entered) return;
    ev->entered = true;
    ev->enter(ev->bracket);
}


void smos__events_time_call(smos_box_t *box, smos_handler_t handler, const smos_call_t *call)
{
    uint64_t start = cycles();
    handler(box->self, call);
    box->stats.cycles += (cycles() - start) * SMOS__CYCLE_SAMPLE;
}


static bool raised(const smos__events_t *ev, uint32_t event)
{
    for (int i = 0; i < ev->raised_count; i++)
        if (ev->raised[i] == event) return true;
    return false;
}


static bool happened(smos__events_t *ev, const smos__route_t *r, const smos_call_t *call)
{
    const smos_box_t *box = r->box;
    if (box->undefined && !box->definitions[r->id - SMOS_USER_EVENT].users) return false;
    if (r->kind == SMOS__RAISED) return raised(ev, r->id);
    if (!r->depth) ev->raised_count = 0;
    ev->predicate = r;
    int yes = r->call.predicate(box->self, call);
    ev->predicate = NULL;
    return yes;
}


/* Stops where a handler drops the packet. */
static inline __attribute__((always_inline)) void walk(smos__events_t *ev, const smos__route_t *r, const smos__route_t *end, uint32_t flow, smos_call_t *call)
{
    const uint8_t side = (uint8_t)(1 << call->side), hook = call->hook ? call->hook : SMOS__HOOKLESS;
    const unsigned event = call->event;
    ev->placed = NULL;
    for (; r < end; r++) {
        if (!(r->sides & side) || !(r->hooks & hook) || (ev->closed && r->socket->closed)) {
            r += r->skip;
            continue;
        }
        if (r->socket != ev->placed) {
            smos__events_place(ev, r, flow, call);
            ev->placed = r->socket;
        }
        smos__events_show_route(r, call);
        if (r->kind == SMOS__CALL)
            smos__events_count_call(ev->current, event, r->call.handler, call);
        else if (!happened(ev, r, call))
            r += r->skip;
        if (ev->dropped && ev->in_packet) {
            ev->current->stats.drops++;
            break;
        }
    }
    smos__events_end_call(ev);
}


void smos__events_walk(smos__events_t *ev, smos__set_t *s, uint32_t flow, smos_call_t *call)
{
    if (ev->dropped && ev->in_packet) return; /* nobody behind who dropped it sees the packet, at no later event either */
    take_bracket(ev, s->embedded);
    const smos__route_t *routes = call->packet && call->packet->from == SMOS_SERVER ? s->back : s->routes;
    s->refs++; /* a handler may move the flow to another set */
    walk(ev, routes + s->first[call->event], routes + s->first[call->event + 1], flow, call);
    smos__set_release(&ev->sets, (uint16_t)(s - ev->sets.set));
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
    take_bracket(ev, s->embedded);
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
    take_bracket(ev, box->embedded);
    ev->current = box;
    if (flow != SMOS__NO_FLOW) {
        call->flow = smos__flow_handle(ev->arena, flow);
        call->tuple = &ev->arena->hot[flow].tuple;
        call->state = box->state ? box->state + (size_t)flow * box->module.state_size : NULL;
        if (box->sockets[0] && box->sockets[0]->watches) call->context = box->sockets[0]->watches[flow].context;
    }
    ev->crumb->module = (uint32_t)(box->sockets[0] && box->sockets[0]->slot >= 0 ? box->sockets[0]->slot + 1 : 0);
    ev->crumb->flow = call->flow;
    smos__events_count_call(box, CALLED_BACK, handler, call);
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
    if (ev->entered && ev->leave) {
        ev->entered = false;
        ev->leave(ev->bracket);
    }
}
