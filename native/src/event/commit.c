/* Modules and their sockets come, are replaced, and go. The cost does not depend on the number of flows: an epoch is counted up, and each
 * flow takes its new subscriptions at its next packet or when the sweep comes by. */
#include "event/commit.h"

#include <errno.h>
#include <string.h>

#define EPOCHS_BEHIND 16384 /* epochs are compared in 16 bits: no flow may fall further behind */


static void next_epoch(smos__events_t *ev)
{
    if ((uint16_t)(ev->epoch - ev->swept) >= EPOCHS_BEHIND) {
        ev->sweep = 0;
        smos__events_sweep(ev, UINT32_MAX);
    }
    smos__sets_forget(&ev->sets); /* they name sockets that may be gone when the epoch's number comes round */
    ev->epoch++;
    ev->sweep = 0;
}


int smos__events_settle(smos__events_t *ev, smos__socket_t *socket)
{
    smos__plan_t *plan = smos__plan_intern(&ev->sets, &socket->wants);
    if (!plan) return -ENOSPC;
    smos__member_t member = {(uint8_t)socket->slot, 3, ev->slots[socket->slot].incarnation, 0, plan};
    uint16_t own;
    int status = smos__set_intern(&ev->sets, ev->sockets, ev->epoch, &member, 1, &own);
    if (status) {
        smos__plan_release(&ev->sets, plan);
        return status;
    }
    smos__set_release(&ev->sets, socket->own_set);
    smos__plan_release(&ev->sets, socket->plan);
    socket->own_set = own;
    socket->plan = plan;
    return 0;
}


static void unsettle(smos__events_t *ev, smos__socket_t *socket)
{
    smos__set_release(&ev->sets, socket->own_set);
    smos__plan_release(&ev->sets, socket->plan);
    socket->own_set = 0;
    socket->plan = NULL;
    socket->slot = -1;
}


static int place_of(const smos__events_t *ev, int slot)
{
    int at = 0;
    while (at < ev->count && ev->order[at] != slot) at++;
    return at;
}


/* Into a slot of its own, at that place of the chain. */
static int put(smos__events_t *ev, smos__socket_t *socket, int place)
{
    int slot = 0;
    if (ev->count == SMOS_MAX_MODULES) return -ENOSPC;
    while (ev->slots[slot].socket) slot++;
    smos__slot_t *s = &ev->slots[slot];
    s->socket = ev->sockets[slot] = socket;
    s->incarnation++;
    socket->slot = slot;
    ev->sets.set[0].refs++; /* its own set, until settled */
    int status = smos__events_settle(ev, socket);
    if (status) {
        smos__set_release(&ev->sets, 0);
        s->socket = ev->sockets[slot] = NULL;
        socket->slot = -1;
        return status;
    }
    s->added = s->replaced = s->filtered = ev->epoch;
    memmove(ev->order + place + 1, ev->order + place, (size_t)(ev->count - place));
    ev->order[place] = (uint8_t)slot;
    ev->count++;
    ev->raw += socket->type == SMOS_RAW;
    ev->datagrams += socket->datagrams;
    return 0;
}


static void take_out(smos__events_t *ev, smos__socket_t *socket)
{
    int place = place_of(ev, socket->slot);
    ev->slots[socket->slot].socket = ev->sockets[socket->slot] = NULL;
    memmove(ev->order + place, ev->order + place + 1, (size_t)(ev->count - place - 1));
    ev->count--;
    ev->raw -= socket->type == SMOS_RAW;
    ev->datagrams -= socket->datagrams;
    unsettle(ev, socket);
}


static smos_box_t *find_box(const smos__events_t *ev, const char *name)
{
    for (int i = 0; i < ev->count; i++)
        if (!strcmp(ev->sockets[ev->order[i]]->box->name, name)) return ev->sockets[ev->order[i]]->box;
    return NULL;
}


/* After the last socket of the box, or at the chain's end. */
static int place_behind(const smos__events_t *ev, const smos_box_t *box)
{
    for (int i = ev->count; i-- > 0;)
        if (ev->sockets[ev->order[i]]->box == box) return i + 1;
    return ev->count;
}


static int put_others(smos__events_t *ev, smos_box_t *box)
{
    for (int i = 1; i < SMOS_MAX_MODULES; i++) {
        if (!box->sockets[i] || box->sockets[i]->closed) continue;
        int status = put(ev, box->sockets[i], place_behind(ev, box));
        if (status) return status;
    }
    return 0;
}


static void take_out_others(smos__events_t *ev, smos_box_t *box)
{
    for (int i = 1; i < SMOS_MAX_MODULES; i++)
        if (box->sockets[i] && box->sockets[i]->slot >= 0) take_out(ev, box->sockets[i]);
}


static int sockets_of(const smos_box_t *box)
{
    int n = 0;
    for (int i = 0; i < SMOS_MAX_MODULES; i++) n += box->sockets[i] && !box->sockets[i]->closed;
    return n;
}


static int commit_new(smos__events_t *ev, smos_box_t *box)
{
    next_epoch(ev);
    int status = put(ev, box->sockets[0], ev->count);
    if (!status) status = put_others(ev, box);
    if (!status) return 0;
    take_out_others(ev, box);
    if (box->sockets[0]->slot >= 0) take_out(ev, box->sockets[0]);
    return status;
}


static void inherit_state(smos_box_t *box, smos_box_t *before)
{
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
}


static int commit_over(smos__events_t *ev, smos_box_t *box, smos_box_t *before)
{
    smos__socket_t *socket = box->sockets[0], *old = before->sockets[0];
    int slot = old->slot;
    bool same_filter = !strcmp(socket->filter_text ? socket->filter_text : "", old->filter_text ? old->filter_text : "");
    next_epoch(ev);
    take_out_others(ev, before);
    ev->slots[slot].socket = ev->sockets[slot] = socket;
    socket->slot = slot;
    ev->sets.set[0].refs++;
    int status = smos__events_settle(ev, socket);
    if (!status) status = put_others(ev, box);
    if (status) { /* the one before goes on, with its sockets anew */
        take_out_others(ev, box);
        unsettle(ev, socket);
        ev->slots[slot].socket = ev->sockets[slot] = old;
        put_others(ev, before);
        return status;
    }
    unsettle(ev, old);
    ev->slots[slot].replaced = ev->epoch;
    if (!same_filter) ev->slots[slot].filtered = ev->epoch;
    box->stats.flows_now = before->stats.flows_now;
    inherit_state(box, before);
    return 0;
}


int smos__events_commit(smos__events_t *ev, smos_box_t *box, smos_box_t **old)
{
    *old = NULL;
    if (ev->sweep != SMOS__NO_FLOW) smos__events_sweep(ev, UINT32_MAX); /* one take-over at a time */
    smos_box_t *before = find_box(ev, box->name);
    if (ev->count - (before ? sockets_of(before) : 0) + sockets_of(box) > SMOS_MAX_MODULES) return -ENOSPC;
    int status = before ? commit_over(ev, box, before) : commit_new(ev, box);
    if (status) return status;
    box->active = true;
    *old = before;
    return 0;
}


int smos__events_remove(smos__events_t *ev, const char *name, smos_box_t **old)
{
    if (ev->sweep != SMOS__NO_FLOW) smos__events_sweep(ev, UINT32_MAX);
    smos_box_t *box = find_box(ev, name);
    if (!box) return -ENOENT;
    take_out_others(ev, box);
    if (box->sockets[0]->slot >= 0) take_out(ev, box->sockets[0]);
    next_epoch(ev);
    box->idle = true;
    *old = box;
    return 0;
}


int smos__events_open(smos__events_t *ev, smos__socket_t *socket)
{
    next_epoch(ev);
    return put(ev, socket, place_behind(ev, socket->box));
}


/* Not its memory yet: its own handler may be running. */
void smos__events_close(smos__events_t *ev, smos__socket_t *socket)
{
    socket->closed = true;
    if (socket->slot >= 0) {
        smos__sets_closing(&ev->sets, socket->slot);
        take_out(ev, socket);
        next_epoch(ev);
    }
    socket->box->sockets[socket->number & 0xff] = NULL;
    socket->next = ev->closed;
    ev->closed = socket;
}
