#include "event/events.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#ifdef __x86_64__
#include <x86intrin.h>
#else
#include <time.h>
#endif

#define SETS_BYTES ((size_t)SMOS__MAX_SETS * sizeof(smos__set_t))
#define NO_SET UINT16_MAX


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


int smos__events_init(smos__events_t *ev, smos__arena_t *arena)
{
    memset(ev, 0, sizeof *ev);
    ev->sets = mmap(NULL, SETS_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ev->sets == MAP_FAILED) return ev->sets = NULL, -ENOMEM;
    for (int i = 0; i < 1024; i++) ev->chains[i] = NO_SET;
    ev->sets[0].refs = 1;
    ev->sets[0].next = NO_SET;
    ev->sets_used = 1;
    ev->free_set = NO_SET;
    ev->arena = arena;
    ev->sweep = SMOS__NO_FLOW;
    return 0;
}


void smos__events_free(smos__events_t *ev)
{
    if (ev->sets) munmap(ev->sets, SETS_BYTES);
    ev->sets = NULL;
}


/* ---- sets ---- */

static uint32_t hash_members(const smos__member_t *m, int count, uint16_t epoch)
{
    uint32_t h = 2166136261u ^ epoch;
    const uint8_t *p = (const uint8_t *)m;
    for (size_t i = 0; i < (size_t)count * sizeof *m; i++) h = (h ^ p[i]) * 16777619u;
    return h ^ h >> 15;
}


/* What one event of a flow with this set calls, from route `begin` on. Returns the route after the last. */
static int lay_event(const smos__events_t *ev, smos__set_t *s, int event, int begin)
{
    int used = begin;
    for (int i = 0; i < s->count; i++) {
        smos_box_t *box = ev->slots[s->members[i].slot].box;
        int own = used;
        for (int h = box->first[event]; h < box->first[event + 1] && used < SMOS__MAX_ROUTES; h++) {
            const smos__handler_t *handler = &box->handlers[h];
            uint8_t sides = event == SMOS_CONN_END ? handler->sides : handler->sides & s->members[i].sides;
            if (!sides) continue;
            s->routes[used++] = (smos__route_t){handler->call, box, s->members[i].slot, handler->hooks, sides};
            for (int side = 0; side < 2; side++) {
                if (!(sides & 1 << side)) continue;
                if (!handler->hooks) s->mask[0][side] |= SMOS_BIT(event);
                if (handler->hooks & SMOS_SENDER) s->mask[SMOS_SENDER][side] |= SMOS_BIT(event);
                if (handler->hooks & SMOS_RECEIVER) s->mask[SMOS_RECEIVER][side] |= SMOS_BIT(event);
            }
        }
        /* reversed by module; within one, the order of registration */
        memmove(s->back + begin + (used - own), s->back + begin, (size_t)(own - begin));
        for (int k = own; k < used; k++) s->back[begin + k - own] = (uint8_t)k;
    }
    return used;
}


static void lay_routes(const smos__events_t *ev, smos__set_t *s)
{
    int used = 0;
    for (unsigned event = 0; event < SMOS_EVENT_COUNT; event++) {
        s->first[event] = (uint8_t)used;
        used = lay_event(ev, s, (int)event, used);
    }
    s->first[SMOS_EVENT_COUNT] = (uint8_t)used;
}


static uint16_t intern(smos__events_t *ev, const smos__member_t *members, int count)
{
    if (!count) {
        ev->sets[0].refs++;
        return 0;
    }
    uint32_t hash = hash_members(members, count, ev->epoch);
    uint16_t *chain = &ev->chains[hash % 1024];
    for (uint16_t i = *chain; i != NO_SET; i = ev->sets[i].next) {
        smos__set_t *s = &ev->sets[i];
        if (s->hash == hash && s->epoch == ev->epoch && s->count == count && !memcmp(s->members, members, (size_t)count * sizeof *members)) {
            s->refs++;
            return i;
        }
    }
    uint16_t index = ev->free_set;
    if (index != NO_SET)
        ev->free_set = ev->sets[index].next;
    else if (ev->sets_used < SMOS__MAX_SETS)
        index = (uint16_t)ev->sets_used++;
    else
        return ev->sets[0].refs++, 0;
    smos__set_t *s = &ev->sets[index];
    memset(s, 0, sizeof *s);
    s->refs = 1;
    s->hash = hash;
    s->epoch = ev->epoch;
    s->count = (uint8_t)count;
    memcpy(s->members, members, (size_t)count * sizeof *members);
    lay_routes(ev, s);
    for (int i = 0; i < 6; i++) s->any |= s->mask[i / 2][i % 2];
    s->stream = (s->mask[0][0] | s->mask[0][1]) & (SMOS_BIT(SMOS_NEW_DATA) | SMOS_BIT(SMOS_GAP));
    s->next = *chain;
    *chain = index;
    return index;
}


static void release(smos__events_t *ev, uint16_t index)
{
    smos__set_t *s = &ev->sets[index];
    if (--s->refs || !index) return;
    uint16_t *link = &ev->chains[s->hash % 1024];
    while (*link != index) link = &ev->sets[*link].next;
    *link = s->next;
    s->next = ev->free_set;
    ev->free_set = index;
}


static void give_set(smos__events_t *ev, uint32_t flow, uint16_t set)
{
    smos__flow_t *f = &ev->arena->hot[flow];
    f->set = set;
    f->epoch = ev->epoch;
    if (ev->sets[set].stream) f->flags |= SMOS__FLOW_STREAM;
}


static void *state_of(const smos_box_t *box, uint32_t flow)
{
    return box->module.state_size ? box->state + (size_t)flow * box->module.state_size : NULL;
}


/* The flow's tuple as an IP header and ports, for filters when no packet is at hand. */
static uint32_t header_of(const smos_tuple_t *t, uint8_t ip[64])
{
    memset(ip, 0, 64);
    uint32_t l4 = t->version == 4 ? 20 : 40;
    if (t->version == 4) {
        ip[0] = 0x45;
        ip[3] = 40;
        ip[8] = 64;
        ip[9] = t->proto;
        memcpy(ip + 12, t->src + 12, 4);
        memcpy(ip + 16, t->dst + 12, 4);
    } else {
        ip[0] = 0x60;
        ip[5] = 20;
        ip[6] = t->proto;
        ip[7] = 64;
        memcpy(ip + 8, t->src, 16);
        memcpy(ip + 24, t->dst, 16);
    }
    ip[l4] = (uint8_t)(t->sport >> 8);
    ip[l4 + 1] = (uint8_t)t->sport;
    ip[l4 + 2] = (uint8_t)(t->dport >> 8);
    ip[l4 + 3] = (uint8_t)t->dport;
    ip[l4 + 12] = 0x50;
    return l4 + 20;
}


static int join(smos__events_t *ev, uint32_t flow, int slot, smos__member_t *members, int count)
{
    smos_box_t *box = ev->slots[slot].box;
    if (box->module.state_size) memset(state_of(box, flow), 0, box->module.state_size);
    box->stats.flows_now++;
    members[count] = (smos__member_t){(uint8_t)slot, 3, ev->slots[slot].incarnation};
    return count + 1;
}


void smos__events_attach(smos__events_t *ev, uint32_t flow, const uint8_t *ip, uint32_t length, uint32_t captured)
{
    smos__member_t members[SMOS_MAX_MODULES];
    int count = 0;
    for (int i = 0; i < ev->count; i++) {
        smos_box_t *box = ev->slots[ev->order[i]].box;
        if (!box->filter || smos__filter_match(box->filter, ip, length, captured)) count = join(ev, flow, ev->order[i], members, count);
    }
    give_set(ev, flow, intern(ev, members, count));
}


void smos__events_refresh(smos__events_t *ev, uint32_t flow, const uint8_t *ip, uint32_t length, uint32_t captured)
{
    smos__flow_t *f = &ev->arena->hot[flow];
    const smos__set_t *old = &ev->sets[f->set];
    smos__member_t members[SMOS_MAX_MODULES];
    uint8_t made[64];
    int count = 0;
    if (!ip) {
        ip = made;
        length = captured = header_of(&f->tuple, made);
    }
    for (int i = 0; i < ev->count; i++) {
        int slot = ev->order[i], at = 0;
        smos__slot_t *s = &ev->slots[slot];
        while (at < old->count && !(old->members[at].slot == slot && old->members[at].incarnation == s->incarnation)) at++;
        if (at < old->count) {
            if ((int16_t)(s->replaced - f->epoch) > 0 && s->box->module.state_size) {
                if (s->box->old && s->box->module.migrate)
                    s->box->module.migrate(s->box->self, state_of(s->box->old, flow), s->box->old->module.state_size, s->box->old->module.layout, state_of(s->box, flow));
            }
            members[count++] = old->members[at];
        } else if ((int16_t)(s->added - f->epoch) > 0 && (!s->box->filter || smos__filter_match(s->box->filter, ip, length, captured))) {
            f->flags |= SMOS__FLOW_EXISTING;
            count = join(ev, flow, slot, members, count);
        }
    }
    uint16_t before = f->set;
    give_set(ev, flow, intern(ev, members, count));
    release(ev, before);
}


void smos__events_detach(smos__events_t *ev, uint32_t flow)
{
    smos__flow_t *f = &ev->arena->hot[flow];
    const smos__set_t *s = &ev->sets[f->set];
    for (int i = 0; i < s->count; i++) {
        smos__slot_t *slot = &ev->slots[s->members[i].slot];
        if (slot->box && slot->incarnation == s->members[i].incarnation) slot->box->stats.flows_now--;
    }
    release(ev, f->set);
    f->set = 0;
}


int smos__events_stop(smos__events_t *ev, uint32_t flow, const smos_box_t *box, int side)
{
    smos__flow_t *f = &ev->arena->hot[flow];
    if (f->epoch != ev->epoch) smos__events_refresh(ev, flow, NULL, 0, 0); /* another flow than the current one may not have seen the last commit */
    const smos__set_t *old = &ev->sets[f->set];
    smos__member_t members[SMOS_MAX_MODULES];
    if (side < 0 || side > SMOS_BOTH) return -EINVAL;
    memcpy(members, old->members, sizeof members);
    for (int i = 0; i < old->count; i++)
        if (ev->slots[members[i].slot].box == box) members[i].sides &= (uint8_t)~(side == SMOS_BOTH ? 3 : 1 << side);
    uint16_t before = f->set;
    give_set(ev, flow, intern(ev, members, old->count));
    release(ev, before);
    return 0;
}


void smos__events_sweep(smos__events_t *ev, uint32_t limit)
{
    uint32_t end = ev->arena->header->high_water;
    for (; limit && ev->sweep < end; limit--, ev->sweep++) {
        smos__flow_t *f = &ev->arena->hot[ev->sweep];
        if (f->class_ != SMOS__CLASS_FREE && f->epoch != ev->epoch) smos__events_refresh(ev, ev->sweep, NULL, 0, 0);
    }
    if (ev->sweep < end) return;
    ev->sweep = SMOS__NO_FLOW;
    for (int i = 0; i < ev->count; i++) {
        smos_box_t *box = ev->slots[ev->order[i]].box;
        if (box->old) {
            box->old->idle = true;
            box->old = NULL;
        }
    }
}


/* ---- commits ---- */

static int find_slot(const smos__events_t *ev, const char *name)
{
    for (int i = 0; i < ev->count; i++)
        if (!strcmp(ev->slots[ev->order[i]].box->name, name)) return ev->order[i];
    return -1;
}


static void next_epoch(smos__events_t *ev)
{
    ev->epoch++;
    ev->sweep = 0;
}


int smos__events_commit(smos__events_t *ev, smos_box_t *box, smos_box_t **old)
{
    *old = NULL;
    if (ev->sweep != SMOS__NO_FLOW) smos__events_sweep(ev, UINT32_MAX); /* one take-over at a time */
    int slot = find_slot(ev, box->name), routes = box->first[SMOS_EVENT_COUNT];
    for (int i = 0; i < ev->count; i++)
        if (ev->order[i] != slot) routes += ev->slots[ev->order[i]].box->first[SMOS_EVENT_COUNT];
    if (routes > SMOS__MAX_ROUTES) return -ENOSPC;
    if (slot < 0) {
        if (ev->count == SMOS_MAX_MODULES) return -ENOSPC;
        for (slot = 0; ev->slots[slot].box;) slot++;
        ev->order[ev->count++] = (uint8_t)slot;
        ev->slots[slot].box = box;
        ev->slots[slot].incarnation++;
        next_epoch(ev);
        ev->slots[slot].added = ev->epoch;
        ev->slots[slot].replaced = ev->epoch;
        return 0;
    }
    smos_box_t *before = ev->slots[slot].box;
    *old = before;
    ev->slots[slot].box = box;
    box->stats.flows_now = before->stats.flows_now;
    next_epoch(ev);
    ev->slots[slot].replaced = ev->epoch;
    if (before->module.state_size == box->module.state_size && before->module.layout == box->module.layout) {
        uint8_t *state = box->state; /* the flows keep what they have */
        box->state = before->state;
        before->state = state;
        before->idle = true;
    } else if (box->module.migrate && before->module.state_size) {
        box->old = before;
    } else {
        before->idle = true;
    }
    return 0;
}


int smos__events_remove(smos__events_t *ev, const char *name, smos_box_t **old)
{
    if (ev->sweep != SMOS__NO_FLOW) smos__events_sweep(ev, UINT32_MAX);
    int slot = find_slot(ev, name);
    if (slot < 0) return -ENOENT;
    *old = ev->slots[slot].box;
    (*old)->idle = true;
    ev->slots[slot].box = NULL;
    int at = 0;
    while (ev->order[at] != slot) at++;
    memmove(ev->order + at, ev->order + at + 1, (size_t)(ev->count - at - 1));
    ev->count--;
    next_epoch(ev);
    return 0;
}


/* ---- calls ---- */

static inline void call_handler(smos__events_t *ev, smos_box_t *box, int slot, smos_handler_t handler, const smos_call_t *call)
{
    if (box->embedded && !ev->entered && ev->enter) {
        ev->entered = true;
        ev->enter(ev->bracket);
    }
    ev->crumb->module = (uint32_t)slot + 1;
    ev->current = box;
    box->stats.event_calls[call->event]++;
    if (box->stats.calls++ % SMOS__CYCLE_SAMPLE) {
        handler(box->self, call);
    } else {
        uint64_t start = cycles();
        handler(box->self, call);
        box->stats.cycles += (cycles() - start) * SMOS__CYCLE_SAMPLE;
    }
    ev->current = NULL;
    ev->crumb->module = 0;
}


void smos__events_raise(smos__events_t *ev, uint32_t flow, smos_call_t *call)
{
    smos__flow_t *f = &ev->arena->hot[flow];
    uint16_t index = f->set;
    smos__set_t *s = &ev->sets[index];
    bool reverse = call->packet && call->packet->from == SMOS_SERVER;
    uint8_t side = (uint8_t)(1 << call->side);
    int end = s->first[call->event + 1];
    call->flow = smos__flow_handle(ev->arena, flow);
    call->tuple = &f->tuple;
    call->existing = f->flags & SMOS__FLOW_EXISTING ? 1 : 0;
    ev->crumb->flow = call->flow;
    s->refs++; /* a handler may move the flow to another set */
    for (int i = s->first[call->event]; i < end; i++) {
        const smos__route_t *r = &s->routes[reverse ? s->back[i] : i];
        if (!(r->sides & side) || (call->hook && !(r->hooks & call->hook))) continue;
        call->state = state_of(r->box, flow);
        call_handler(ev, r->box, r->slot, r->call, call);
        if (ev->dropped && ev->in_packet) {
            r->box->stats.drops++;
            break;
        }
    }
    if (s->refs == 1)
        release(ev, index);
    else
        s->refs--;
}


void smos__events_raise_orphan(smos__events_t *ev, smos_call_t *call, const uint8_t *ip, uint32_t length, uint32_t captured)
{
    for (int i = 0; i < ev->count && !ev->dropped; i++) {
        const smos_box_t *box = ev->slots[ev->order[i]].box;
        if (!(box->mask[0][call->side] & SMOS_BIT(SMOS_ORPHAN))) continue;
        if (box->filter && !smos__filter_match(box->filter, ip, length, captured)) continue;
        smos_box_t *called = ev->slots[ev->order[i]].box;
        for (int h = box->first[SMOS_ORPHAN]; h < box->first[SMOS_ORPHAN + 1] && !ev->dropped; h++)
            if (box->handlers[h].sides & 1 << call->side) call_handler(ev, called, ev->order[i], box->handlers[h].call, call);
    }
}
