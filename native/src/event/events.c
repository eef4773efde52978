/* A flow's membership: which sockets watch it, from its first packet on and over commits. */
#include "event/events.h"

#include <errno.h>
#include <string.h>


int smos__events_init(smos__events_t *ev, smos__arena_t *arena)
{
    ev->arena = arena;
    ev->sweep = SMOS__NO_FLOW;
    ev->entered = true;
    return smos__sets_init(&ev->sets);
}


void smos__events_free(smos__events_t *ev)
{
    while (ev->closed) {
        smos__socket_t *next = ev->closed->next;
        smos__socket_free(ev->closed);
        ev->closed = next;
    }
    smos__sets_free(&ev->sets);
}


static uint16_t intern(smos__events_t *ev, const smos__member_t *members, int count)
{
    uint16_t set;
    if (!smos__set_intern(&ev->sets, ev->sockets, ev->epoch, members, count, &set)) return set;
    ev->unattached++;
    ev->sets.set[0].refs++;
    return 0;
}


/* Nobody wants this end's bytes any more: nothing is buffered, and what waited is given up. */
static void leave_stream(smos__events_t *ev, uint32_t flow, int from)
{
    smos__flow_t *f = &ev->arena->hot[flow];
    if (!(f->end[from].flags & (SMOS__EP_HOLE | SMOS__EP_SYN_DATA))) return;
    smos__assembler_clear(&ev->arena->cold[flow].end[from].assembler, ev->arena->pool);
    f->end[from].flags &= (uint16_t)~(SMOS__EP_HOLE | SMOS__EP_SYN_DATA);
}


void smos__events_give_set(smos__events_t *ev, uint32_t flow, uint16_t set)
{
    smos__flow_t *f = &ev->arena->hot[flow];
    f->set = set;
    f->epoch = ev->epoch;
    uint16_t before = f->flags & SMOS__FLOW_STREAMS, wanted = ev->all_streams ? SMOS__FLOW_STREAMS : ev->sets.set[set].streams;
    if (before == wanted) return;
    f->flags = (uint16_t)((f->flags & ~SMOS__FLOW_STREAMS) | wanted);
    for (int from = 0; from < 2; from++)
        if (before & ~wanted & SMOS__FLOW_STREAM_OF(from)) leave_stream(ev, flow, from);
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


static bool box_among(const smos__events_t *ev, const smos_box_t *box, const smos__member_t *members, int count)
{
    for (int i = 0; i < count; i++)
        if (ev->sockets[members[i].slot]->box == box) return true;
    return false;
}


static int join(smos__events_t *ev, uint32_t flow, int slot, smos__member_t *members, int count)
{
    smos__socket_t *socket = ev->sockets[slot];
    smos_box_t *box = socket->box;
    if (!box_among(ev, box, members, count)) {
        if (box->module.state_size) memset(state_of(box, flow), 0, box->module.state_size);
        box->stats.flows_now++;
    }
    const smos__stream_options_t *o = &socket->plan->wants.options;
    smos__watch_t *w = socket->watches || o->history[0] | o->history[1] ? smos__events_watch(ev, socket, flow) : NULL;
    if (w) { /* it reads from here on */
        const smos__flow_t *f = &ev->arena->hot[flow];
        *w = (smos__watch_t){.read = {f->end[1].offset, f->end[0].offset}};
    }
    members[count] = (smos__member_t){(uint8_t)slot, 3, ev->slots[slot].incarnation, 0, socket->plan};
    return count + 1;
}


void smos__events_attach(smos__events_t *ev, uint32_t flow, const uint8_t *ip, uint32_t length, uint32_t captured)
{
    smos__member_t members[SMOS_MAX_MODULES];
    int count = 0;
    for (int i = 0; i < ev->count; i++) {
        const smos__socket_t *socket = ev->sockets[ev->order[i]];
        if (socket->type != SMOS_STREAM) continue;
        if (!socket->filter || smos__filter_match(socket->filter, ip, length, captured)) count = join(ev, flow, ev->order[i], members, count);
    }
    smos__events_give_set(ev, flow, intern(ev, members, count));
}


static bool newer(uint16_t epoch, const smos__flow_t *f) { return (int16_t)(epoch - f->epoch) > 0; }


/* A member of the flow goes on under what is in its slot now. */
static smos__member_t carry(smos__events_t *ev, uint32_t flow, const smos__member_t *before)
{
    const smos__flow_t *f = &ev->arena->hot[flow];
    const smos__slot_t *slot = &ev->slots[before->slot];
    smos__member_t m = *before;
    if (!newer(slot->replaced, f)) return m;
    const smos_box_t *box = slot->socket->box;
    m.plan = slot->socket->plan; /* what the version before had registered on this flow is gone with it */
    if (slot->socket->watches) memset(&slot->socket->watches[flow], 0, sizeof slot->socket->watches[flow]);
    if (box->module.state_size && box->old) {
        memset(state_of(box, flow), 0, box->module.state_size);
        if (box->module.migrate)
            box->module.migrate(box->self, state_of(box->old, flow), box->old->module.state_size, box->old->module.layout, state_of(box, flow));
    }
    return m;
}


void smos__events_refresh(smos__events_t *ev, uint32_t flow, const uint8_t *ip, uint32_t length, uint32_t captured)
{
    smos__flow_t *f = &ev->arena->hot[flow];
    const smos__set_t *old = &ev->sets.set[f->set];
    smos__member_t members[SMOS_MAX_MODULES];
    uint8_t made[64];
    int count = 0;
    if (!ip) {
        ip = made;
        length = captured = header_of(&f->tuple, made);
    }
    for (int i = 0; i < ev->count; i++) {
        int slot = ev->order[i], at = 0;
        const smos__slot_t *s = &ev->slots[slot];
        const smos__socket_t *socket = s->socket;
        if (socket->type != SMOS_STREAM) continue;
        while (at < old->count && !(old->members[at].slot == slot && old->members[at].incarnation == s->incarnation)) at++;
        bool member = at < old->count;
        bool asked = newer(member ? s->filtered : s->added, f) || (!member && newer(s->filtered, f));
        bool wanted = asked ? !socket->filter || smos__filter_match(socket->filter, ip, length, captured) : member;
        if (member && wanted) {
            members[count++] = carry(ev, flow, &old->members[at]);
        } else if (member) {
            socket->box->stats.flows_now--;
        } else if (wanted) {
            f->flags |= SMOS__FLOW_EXISTING;
            count = join(ev, flow, slot, members, count);
        }
    }
    uint16_t before = f->set;
    smos__events_give_set(ev, flow, intern(ev, members, count));
    smos__set_release(&ev->sets, before);
}


void smos__events_detach(smos__events_t *ev, uint32_t flow)
{
    smos__flow_t *f = &ev->arena->hot[flow];
    const smos__set_t *s = &ev->sets.set[f->set];
    const smos_box_t *counted = NULL;
    for (int i = 0; i < s->count; i++) { /* sockets of one module stand together */
        const smos__slot_t *slot = &ev->slots[s->members[i].slot];
        if (!slot->socket || slot->incarnation != s->members[i].incarnation || slot->socket->box == counted) continue;
        counted = slot->socket->box;
        slot->socket->box->stats.flows_now--;
    }
    smos__set_release(&ev->sets, f->set);
    f->set = 0;
}


void smos__events_sweep(smos__events_t *ev, uint32_t limit)
{
    uint32_t end = ev->arena->header->high_water;
    for (; limit && ev->sweep < end; limit--, ev->sweep++) {
        const smos__flow_t *f = &ev->arena->hot[ev->sweep];
        if (f->class_ != SMOS__CLASS_FREE && f->epoch != ev->epoch) smos__events_refresh(ev, ev->sweep, NULL, 0, 0);
    }
    if (ev->sweep < end) return;
    ev->sweep = SMOS__NO_FLOW;
    ev->swept = ev->epoch;
    for (int i = 0; i < ev->count; i++) {
        smos_box_t *box = ev->sockets[ev->order[i]]->box;
        if (box->old) {
            box->old->idle = true;
            box->old = NULL;
        }
    }
}
