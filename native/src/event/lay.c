/* Laying out what a set's members want as the calls of each event. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "event/set.h"

typedef struct layout {
    smos__route_t route[SMOS__MAX_ROUTES], back[SMOS__MAX_ROUTES];
    int routes;
    int first[SMOS_EVENT_COUNT + 1]; /* of each event */
    bool overflow;
    const smos__member_t *member;
    smos__socket_t *socket;
    uint32_t needed[SMOS__MAX_HANDLERS * 16]; /* user-defined events with a registration under them, ascending */
    int needed_count;
} layout_t;


static void need(layout_t *l, uint32_t event)
{
    int at = 0;
    while (at < l->needed_count && l->needed[at] < event) at++;
    if (at < l->needed_count && l->needed[at] == event) return;
    if (l->needed_count == (int)(sizeof l->needed / sizeof *l->needed)) {
        l->overflow = true;
        return;
    }
    memmove(&l->needed[at + 1], &l->needed[at], (size_t)(l->needed_count - at) * sizeof l->needed[0]);
    l->needed[at] = event;
    l->needed_count++;
}


static void collect_needed(layout_t *l)
{
    const smos_box_t *box = l->socket->box;
    const smos__wants_t *w = &l->member->plan->wants;
    l->needed_count = 0;
    for (uint64_t i = 0; i < w->count; i++)
        for (uint32_t event = w->entry[i].event; event >= SMOS_USER_EVENT; event = box->definitions[event - SMOS_USER_EVENT].parent) need(l, event);
}


static smos__route_t *next_route(layout_t *l)
{
    if (l->routes == SMOS__MAX_ROUTES) {
        l->overflow = true;
        return NULL;
    }
    return &l->route[l->routes++];
}


static smos__route_t route_of(const layout_t *l, uint32_t event, int depth)
{
    return (smos__route_t){.id = event, .number = l->socket->number, .socket = l->socket, .box = l->socket->box, .kind = SMOS__CALL, .depth = (uint8_t)(depth < 255 ? depth : 255), .slot = (uint8_t)(l->member->slot + 1)};
}


static void lay_calls(layout_t *l, uint32_t event, uint32_t root, int depth)
{
    const smos__wants_t *w = &l->member->plan->wants;
    for (uint64_t i = 0; i < w->count; i++) {
        const smos__entry_t *e = &w->entry[i];
        if (e->event != event) continue;
        uint8_t sides = root == SMOS_CONN_END ? e->sides : e->sides & l->member->sides;
        if (!sides) continue;
        smos__route_t *r = next_route(l);
        if (!r) return;
        *r = route_of(l, event, depth);
        r->call.handler = e->call;
        r->arg = e->arg;
        r->hooks = e->hooks ? e->hooks : SMOS__HOOKLESS;
        r->sides = sides;
    }
}


/* The user-defined events under `parent`, each before what is registered on it, in the order of their definition. */
static void lay_defined(layout_t *l, uint32_t parent, uint32_t root, int depth)
{
    for (int i = 0; i < l->needed_count && !l->overflow; i++) {
        uint32_t id = l->needed[i];
        const smos__definition_t *d = &l->socket->box->definitions[id - SMOS_USER_EVENT];
        if (d->parent != parent) continue;
        int at = l->routes;
        smos__route_t *r = next_route(l);
        if (!r) return;
        *r = route_of(l, id, depth);
        r->call.predicate = d->predicate;
        r->arg = d->arg;
        r->kind = d->predicate ? SMOS__PREDICATE : SMOS__RAISED;
        lay_calls(l, id, root, depth + 1);
        lay_defined(l, id, root, depth + 1);
        r->skip = (uint16_t)(l->routes - at - 1);
        if (!r->skip) l->routes = at; /* only for a side that is not monitored */
        for (int k = at + 1; k < l->routes; k++) {
            r->hooks |= l->route[k].hooks;
            r->sides |= l->route[k].sides;
        }
    }
}


static uint8_t where_of(const smos__route_t *r)
{
    uint32_t where = r->sides; /* whatever its hooks, without one */
    if (r->hooks & SMOS_SENDER) where |= r->sides * SMOS__WHERE(0, SMOS_SENDER);
    if (r->hooks & SMOS_RECEIVER) where |= r->sides * SMOS__WHERE(0, SMOS_RECEIVER);
    return (uint8_t)where;
}


static void note_mask(smos__set_t *s, uint32_t event, const smos__route_t *r)
{
    for (int side = 0; side < 2; side++) {
        if (!(r->sides & 1 << side)) continue;
        if (r->hooks == SMOS__HOOKLESS) {
            s->mask[0][side] |= SMOS_BIT(event);
            continue;
        }
        if (r->hooks & SMOS_SENDER) s->mask[SMOS_SENDER][side] |= SMOS_BIT(event);
        if (r->hooks & SMOS_RECEIVER) s->mask[SMOS_RECEIVER][side] |= SMOS_BIT(event);
    }
}


/* One socket's routes [begin, l->routes) go before those of the sockets before it, which begin at `first`. */
static void lay_back(layout_t *l, int first, int begin)
{
    int own = l->routes - begin;
    memmove(&l->back[first + own], &l->back[first], (size_t)(begin - first) * sizeof l->back[0]);
    memcpy(&l->back[first], &l->route[begin], (size_t)own * sizeof l->back[0]);
}


static smos__dispatch_t dispatch_of(const smos__route_t *r, int count)
{
    if (count == 1 && r->box->per_flow) return r->box->embedded ? smos__dispatch_one_kept_within : smos__dispatch_one_kept;
    if (count == 1) return r->box->embedded ? smos__dispatch_one_within : smos__dispatch_one;
    if (count == 2 && r->kind == SMOS__PREDICATE && r[1].kind == SMOS__CALL) return r->box->embedded ? smos__dispatch_filtered_within : smos__dispatch_filtered;
    return smos__dispatch_walk;
}


static void lay(layout_t *l, smos__set_t *s, smos__socket_t *const *sockets, const smos__member_t *members, int count)
{
    for (uint32_t event = 0; event < SMOS_EVENT_COUNT; event++) {
        int first = l->routes;
        l->first[event] = first;
        for (int m = 0; m < count && !l->overflow; m++) {
            int begin = l->routes;
            l->member = &members[m];
            l->socket = sockets[members[m].slot];
            collect_needed(l);
            lay_calls(l, event, event, 0);
            if (l->needed_count) lay_defined(l, event, event, 0);
            for (int i = begin; i < l->routes; i++) l->route[i].where = where_of(&l->route[i]);
            if (!l->overflow) lay_back(l, first, begin);
        }
        for (int i = first; i < l->routes; i += 1 + l->route[i].skip) note_mask(s, event, &l->route[i]);
        s->dispatch[event] = dispatch_of(&l->route[first], l->routes - first);
    }
    l->first[SMOS_EVENT_COUNT] = l->routes;
}


int smos__set_lay(smos__set_t *set, smos__socket_t *const *sockets, const smos__member_t *members, int count)
{
    layout_t *l = malloc(sizeof *l);
    if (!l) return -ENOMEM;
    l->routes = l->needed_count = 0;
    l->overflow = false;
    lay(l, set, sockets, members, count);
    if (l->overflow) return free(l), -ENOSPC;
    size_t member_bytes = (size_t)count * sizeof *members, route_bytes = (size_t)l->routes * sizeof *l->route;
    uint8_t *memory = malloc(member_bytes + 2 * route_bytes);
    if (!memory) return free(l), -ENOMEM;
    set->members = (smos__member_t *)(void *)memory;
    memcpy(memory, members, member_bytes);
    memcpy(memory + member_bytes, l->route, route_bytes);
    memcpy(memory + member_bytes + route_bytes, l->back, route_bytes);
    for (int i = 0; i <= SMOS_EVENT_COUNT; i++) set->route[i] = (const smos__route_t *)(const void *)(memory + member_bytes) + l->first[i];
    free(l);
    return 0;
}
