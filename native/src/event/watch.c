/* A socket of one flow: its own registrations and options, as a move to another interned set. */
#include <errno.h>
#include <string.h>

#include "event/commit.h"
#include "event/events.h"


static void see_last_commit(smos__events_t *ev, uint32_t flow)
{
    if (ev->arena->hot[flow].epoch != ev->epoch) smos__events_refresh(ev, flow, NULL, 0, 0);
}


static int member_of(const smos__events_t *ev, const smos__set_t *s, const smos__socket_t *socket)
{
    for (int i = 0; i < s->count; i++)
        if (ev->sockets[s->members[i].slot] == socket) return i;
    return -ENOTCONN;
}


/* The flow goes on with these members; on an error nothing has changed. */
static int move(smos__events_t *ev, uint32_t flow, const smos__member_t *members, int count)
{
    uint16_t set, before = ev->arena->hot[flow].set;
    int status = smos__set_intern(&ev->sets, ev->sockets, ev->epoch, members, count, &set);
    if (status) return status;
    smos__events_give_set(ev, flow, set);
    smos__set_release(&ev->sets, before);
    return 0;
}


static int change_flow(smos__events_t *ev, const smos__socket_t *socket, uint32_t flow, smos__change_t change, const void *what)
{
    see_last_commit(ev, flow);
    const smos__set_t *old = &ev->sets.set[ev->arena->hot[flow].set];
    int at = member_of(ev, old, socket);
    if (at < 0) return at;
    smos__wants_t wants = old->members[at].plan->wants;
    int status = change(&wants, what);
    if (status) return status;
    smos__plan_t *plan = smos__plan_intern(&ev->sets, &wants);
    if (!plan) return -ENOSPC;
    smos__member_t members[SMOS_MAX_MODULES];
    int count = old->count;
    memcpy(members, old->members, (size_t)count * sizeof *members);
    members[at].plan = plan;
    status = move(ev, flow, members, count);
    smos__plan_release(&ev->sets, plan); /* the set holds it */
    return status;
}


int smos__events_change(smos__events_t *ev, smos__socket_t *socket, uint32_t flow, smos__change_t change, const void *what)
{
    if (flow != SMOS__NO_FLOW) return change_flow(ev, socket, flow, change, what);
    smos__wants_t before = socket->wants;
    int status = change(&socket->wants, what);
    if (!status && socket->slot >= 0) status = smos__events_settle(ev, socket);
    if (status) socket->wants = before;
    return status;
}


const smos__wants_t *smos__events_wants(smos__events_t *ev, const smos__socket_t *socket, uint32_t flow)
{
    if (flow == SMOS__NO_FLOW) return &socket->wants;
    see_last_commit(ev, flow);
    const smos__set_t *s = &ev->sets.set[ev->arena->hot[flow].set];
    int at = member_of(ev, s, socket);
    return at < 0 ? NULL : &s->members[at].plan->wants;
}


int smos__events_stop(smos__events_t *ev, uint32_t flow, const smos_box_t *box, const smos__socket_t *socket, int side)
{
    if (side < 0 || side > SMOS_BOTH) return -EINVAL;
    see_last_commit(ev, flow);
    const smos__set_t *old = &ev->sets.set[ev->arena->hot[flow].set];
    smos__member_t members[SMOS_MAX_MODULES];
    int count = old->count;
    bool found = false;
    for (int i = 0; i < count; i++) {
        members[i] = old->members[i];
        const smos__socket_t *each = ev->sockets[members[i].slot];
        if (socket ? each != socket : each->box != box) continue;
        members[i].sides &= (uint8_t)~(side == SMOS_BOTH ? 3 : 1 << side);
        found = true;
    }
    if (!found) return socket ? -ENOTCONN : 0;
    return move(ev, flow, members, count);
}


int smos__events_leave(smos__events_t *ev, uint32_t flow, const smos__socket_t *socket)
{
    see_last_commit(ev, flow);
    const smos__set_t *old = &ev->sets.set[ev->arena->hot[flow].set];
    int at = member_of(ev, old, socket);
    if (at < 0) return at;
    smos__member_t members[SMOS_MAX_MODULES];
    int count = 0;
    for (int i = 0; i < old->count; i++)
        if (i != at) members[count++] = old->members[i];
    int status = move(ev, flow, members, count);
    if (!status && !smos__events_watches(ev, flow, socket->box, NULL)) socket->box->stats.flows_now--;
    return status;
}


bool smos__events_watches(smos__events_t *ev, uint32_t flow, const smos_box_t *box, const smos__socket_t *socket)
{
    see_last_commit(ev, flow);
    const smos__set_t *s = &ev->sets.set[ev->arena->hot[flow].set];
    for (int i = 0; i < s->count; i++) {
        const smos__socket_t *each = ev->sockets[s->members[i].slot];
        if (socket ? each == socket : each->box == box) return true;
    }
    return false;
}


void smos__events_keep(smos__events_t *ev, smos_box_t *box)
{
    if (box->per_flow) return;
    box->per_flow = true;
    smos__sets_keeping(&ev->sets, box);
}


smos__watch_t *smos__events_watch(smos__events_t *ev, smos__socket_t *socket, uint32_t flow)
{
    smos__watch_t *w = smos__socket_watch(socket, flow);
    if (w) smos__events_keep(ev, socket->box);
    return w;
}
