/* Calling handlers: the ways through the routes of one event. */
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
    if (__builtin_expect(!needed || ev->entered, 1)) return;
    ev->entered = true;
    ev->enter(ev->bracket);
}


/* The last of a round of SMOS__CYCLE_SAMPLE. */
static __attribute__((noinline)) void time_call(smos_box_t *box, const smos_call_t *call, smos_handler_t handler, size_t event)
{
    box->untimed[event] = SMOS__CYCLE_SAMPLE;
    box->stats.event_calls[event] += SMOS__CYCLE_SAMPLE;
    uint64_t start = cycles();
    handler(box->self, call);
    box->stats.cycles += (cycles() - start) * SMOS__CYCLE_SAMPLE;
}


/* One handler, counted. */
static inline void count_call(smos_box_t *box, size_t event, const smos_handler_t *handler, const smos_call_t *call)
{
    if (__builtin_expect(--box->untimed[event] != 0, 1))
        (*handler)(box->self, call);
    else
        time_call(box, call, *handler, event);
}


static inline uint32_t flow_of(const smos_call_t *call) { return (uint32_t)call->flow; }


/* From here until it is absolved, what is called and what breaks is the module's. */
static inline void charge(smos__events_t *ev, const smos__route_t *r)
{
    ev->current = r->box;
    ev->crumb.module = r->slot;
}


static inline void absolve(smos__events_t *ev)
{
    ev->current = NULL;
    ev->crumb.module = 0;
}


/* What the module keeps of the flow (SMOS__NO_FLOW: of the template). */
static inline void show_kept(const smos__route_t *r, uint32_t flow, smos_call_t *call)
{
    const smos_box_t *box = r->box;
    const smos__socket_t *socket = r->socket;
    call->state = call->context = NULL;
    if (!box->per_flow) return;
    if (flow == SMOS__NO_FLOW) {
        call->context = socket->context;
        return;
    }
    if (box->state) call->state = box->state + (size_t)flow * box->module.state_size;
    if (socket->watches) call->context = socket->watches[flow].context;
}


_Static_assert(offsetof(smos_call_t, arg) - offsetof(smos_call_t, id) == offsetof(smos__route_t, arg) - offsetof(smos__route_t, id) &&
               offsetof(smos_call_t, sock) - offsetof(smos_call_t, id) == offsetof(smos__route_t, number) - offsetof(smos__route_t, id), "copied in one piece");

static inline void show_route(const smos__route_t *r, smos_call_t *call)
{
    memcpy(&call->id, &r->id, offsetof(smos_call_t, context) - offsetof(smos_call_t, id));
}


/* The packet is dropped: nobody else is called. */
static inline bool stopped(smos__events_t *ev)
{
    if (__builtin_expect(!ev->dropped, 1) || !ev->in_packet) return false;
    ev->current->stats.drops++;
    return true;
}


static bool raised(const smos__events_t *ev, uint32_t event)
{
    for (int i = 0; i < ev->raised_count; i++)
        if (ev->raised[i] == event) return true;
    return false;
}


static inline bool ask(smos__events_t *ev, const smos__route_t *r, const smos_call_t *call)
{
    ev->predicate = r;
    int yes = r->call.predicate(ev->current->self, call);
    ev->predicate = NULL;
    return yes;
}


static bool happened(smos__events_t *ev, const smos__route_t *r, const smos_call_t *call)
{
    const smos_box_t *box = r->box;
    if (box->undefined && !box->definitions[r->id - SMOS_USER_EVENT].users) return false;
    if (r->kind == SMOS__RAISED) return raised(ev, r->id);
    if (!r->depth) ev->raised_count = 0;
    return ask(ev, r, call);
}


/* Stops where a handler drops the packet. */
static inline __attribute__((always_inline)) void walk(smos__events_t *ev, const smos__route_t *r, const smos__route_t *end, uint32_t flow, smos_call_t *call)
{
    const uint8_t where = (uint8_t)SMOS__WHERE(call->side, call->hook);
    const size_t event = call->event;
    ev->placed = NULL;
    for (; r < end; r++) {
        if (!(r->where & where) || (ev->closed && r->socket->closed)) {
            r += r->skip;
            continue;
        }
        if (r->socket != ev->placed) {
            charge(ev, r);
            show_kept(r, flow, call);
            ev->placed = r->socket;
        }
        show_route(r, call);
        if (r->kind == SMOS__CALL)
            count_call(ev->current, event, &r->call.handler, call);
        else if (!happened(ev, r, call))
            r += r->skip;
        if (stopped(ev)) break;
    }
    call->state = call->context = NULL;
    absolve(ev);
}


/* A handler may move the flow to another set: what is walked is held. */
static inline void let_go(smos__events_t *ev, smos__set_t *s)
{
    if (__builtin_expect(--s->refs != 0, 1)) return;
    s->refs = 1;
    smos__set_release(&ev->sets, (uint16_t)(s - ev->sets.set));
}


void smos__dispatch_walk(smos__events_t *ev, smos__set_t *s, size_t event)
{
    smos_call_t *call = &ev->call;
    const bool back = s->count > 1 && call->packet && call->packet->from == SMOS_SERVER;
    const smos__route_t *r = back ? smos__route_back(s, event) : s->route[event];
    take_bracket(ev, s->embedded);
    s->refs++;
    walk(ev, r, r + (s->route[event + 1] - s->route[event]), flow_of(call), call);
    let_go(ev, s);
}


/* A handler of the module that is charged. Its route may be gone afterwards. */
static inline void handle(smos__events_t *ev, const smos__route_t *r, size_t event)
{
    show_route(r, &ev->call);
    count_call(ev->current, event, &r->call.handler, &ev->call);
    stopped(ev);
}


static inline void handle_kept(smos__events_t *ev, const smos__route_t *r, size_t event)
{
    show_kept(r, flow_of(&ev->call), &ev->call);
    handle(ev, r, event);
    ev->call.state = ev->call.context = NULL;
}


void smos__dispatch_one(smos__events_t *ev, smos__set_t *s, size_t event)
{
    const smos__route_t *r = s->route[event];
    charge(ev, r);
    handle(ev, r, event);
    absolve(ev);
}


void smos__dispatch_one_kept(smos__events_t *ev, smos__set_t *s, size_t event)
{
    const smos__route_t *r = s->route[event];
    charge(ev, r);
    handle_kept(ev, r, event);
    absolve(ev);
}


void smos__dispatch_filtered(smos__events_t *ev, smos__set_t *s, size_t event)
{
    const smos__route_t *r = s->route[event];
    if (r->box->per_flow || r->box->undefined) {
        smos__dispatch_walk(ev, s, event);
        return;
    }
    s->refs++;
    charge(ev, r);
    show_route(r, &ev->call);
    ev->raised_count = 0;
    const bool yes = ask(ev, r, &ev->call);
    event = ev->call.event; /* and what else was at hand: cheaper found again than kept over the call */
    r = s->route[event] + 1;
    if (!stopped(ev) && yes) {
        if (__builtin_expect(!ev->closed && !ev->current->per_flow, 1))
            handle(ev, r, event);
        else if (!r->socket->closed)
            handle_kept(ev, r, event);
    }
    absolve(ev);
    let_go(ev, s);
}


/* The first call of a burst that needs the bracket. */
static __attribute__((noinline, cold)) void enter(smos__events_t *ev, smos__set_t *s, size_t event, smos__dispatch_t dispatch)
{
    take_bracket(ev, true);
    dispatch(ev, s, event);
}


void smos__dispatch_one_within(smos__events_t *ev, smos__set_t *s, size_t event)
{
    if (ev->entered)
        smos__dispatch_one(ev, s, event);
    else
        enter(ev, s, event, smos__dispatch_one);
}


void smos__dispatch_one_kept_within(smos__events_t *ev, smos__set_t *s, size_t event)
{
    if (ev->entered)
        smos__dispatch_one_kept(ev, s, event);
    else
        enter(ev, s, event, smos__dispatch_one_kept);
}


void smos__dispatch_filtered_within(smos__events_t *ev, smos__set_t *s, size_t event)
{
    if (ev->entered)
        smos__dispatch_filtered(ev, s, event);
    else
        enter(ev, s, event, smos__dispatch_filtered);
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
    smos__set_t *s = &ev->sets.set[socket->own_set];
    if (!((s->mask[0][call->side] | s->mask[SMOS_SENDER][call->side]) & SMOS_BIT(call->event))) return;
    take_bracket(ev, s->embedded);
    s->refs++;
    walk(ev, s->route[call->event], s->route[call->event + 1], SMOS__NO_FLOW, call);
    let_go(ev, s);
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
    ev->crumb.module = (uint32_t)(box->sockets[0] && box->sockets[0]->slot >= 0 ? box->sockets[0]->slot + 1 : 0);
    ev->crumb.flow = call->flow;
    count_call(box, CALLED_BACK, &handler, call);
    ev->crumb.module = 0;
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
