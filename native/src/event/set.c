/* See set.h. */
#include "event/set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "flow/flow.h"

#define SETS_BYTES ((size_t)SMOS__MAX_SETS * sizeof(smos__set_t))
#define CHAINS 4096
#define KEPT_MAX 256 /* sets without flows */


static uint32_t hash_bytes(uint32_t h, const void *data, size_t length)
{
    const uint64_t *p = data; /* everything hashed is made of whole, aligned words */
    uint64_t x = h ^ 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < length / 8; i++) {
        x = (x ^ p[i]) * 0xff51afd7ed558ccdu;
        x ^= x >> 32;
    }
    return (uint32_t)x;
}


int smos__sets_init(smos__sets_t *s)
{
    memset(s, 0, sizeof *s);
    s->set = mmap(NULL, SETS_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s->set == MAP_FAILED) return s->set = NULL, -ENOMEM;
    for (int i = 0; i < CHAINS; i++) s->chain[i] = SMOS__NO_SET;
    smos__set_t *empty = &s->set[0];
    empty->refs = 1;
    empty->next = SMOS__NO_SET;
    for (int side = 0; side < 2; side++) {
        empty->options.buffer[side] = SMOS__DEFAULT;
        empty->options.overlap[side] = SMOS__DEFAULT_POLICY;
    }
    s->used = 1;
    s->free = SMOS__NO_SET;
    return 0;
}


void smos__sets_free(smos__sets_t *s)
{
    if (!s->set) return;
    for (uint32_t i = 1; i < s->used; i++) free(s->set[i].members);
    for (int i = 0; i < CHAINS; i++) {
        for (smos__plan_t *p = s->plans[i], *next; p; p = next) {
            next = p->next;
            free(p);
        }
    }
    munmap(s->set, SETS_BYTES);
    s->set = NULL;
}


/* ---- plans ---- */

static size_t wants_bytes(const smos__wants_t *w) { return offsetof(smos__wants_t, entry) + w->count * sizeof w->entry[0]; }


smos__plan_t *smos__plan_intern(smos__sets_t *s, const smos__wants_t *w)
{
    size_t bytes = wants_bytes(w);
    uint32_t hash = hash_bytes(1, w, bytes);
    smos__plan_t **chain = &s->plans[hash % CHAINS];
    for (smos__plan_t *p = *chain; p; p = p->next) {
        if (p->hash != hash || p->wants.count != w->count || memcmp(&p->wants, w, bytes) != 0) continue;
        p->refs++;
        return p;
    }
    if (s->plan_count == SMOS__MAX_PLANS) return NULL;
    smos__plan_t *p = malloc(sizeof *p);
    if (!p) return NULL;
    p->next = *chain;
    p->refs = 1;
    p->hash = hash;
    p->wants = *w;
    *chain = p;
    s->plan_count++;
    return p;
}


void smos__plan_hold(smos__plan_t *p) { p->refs++; }


void smos__plan_release(smos__sets_t *s, smos__plan_t *p)
{
    if (!p || --p->refs) return;
    smos__plan_t **link = &s->plans[p->hash % CHAINS];
    while (*link != p) link = &(*link)->next;
    *link = p->next;
    s->plan_count--;
    free(p);
}


static bool wants_bytes_of(const smos__member_t *m, const smos_box_t *box, int side)
{
    const smos__wants_t *w = &m->plan->wants;
    if (w->options.history[side]) return true;
    for (uint64_t i = 0; i < w->count; i++) {
        uint32_t root = w->entry[i].event < SMOS_USER_EVENT ? w->entry[i].event : box->definitions[w->entry[i].event - SMOS_USER_EVENT].root;
        if ((root == SMOS_NEW_DATA || root == SMOS_GAP) && w->entry[i].sides & 1 << side) return true;
    }
    return false;
}


/* A flow keeps the most that any socket asks for; the last socket with an opinion has the overlap policy. */
static void join_options(smos__set_t *s, smos__socket_t *const *sockets)
{
    smos__stream_options_t *o = &s->options;
    for (int side = 0; side < 2; side++) {
        bool bounded = false, configured = false;
        uint32_t most = 0;
        o->overlap[side] = SMOS__DEFAULT_POLICY;
        for (int i = 0; i < s->count; i++) {
            const smos__stream_options_t *m = &s->members[i].plan->wants.options;
            if (!(s->members[i].sides & 1 << side)) continue;
            if (m->history[side] > o->history[side]) o->history[side] = m->history[side];
            if (m->overlap[side] != SMOS__DEFAULT_POLICY) o->overlap[side] = m->overlap[side];
            if (m->buffer[side] != SMOS__DEFAULT) {
                bounded = true;
                if (m->buffer[side] > most) most = m->buffer[side];
            } else if (wants_bytes_of(&s->members[i], sockets[s->members[i].slot]->box, side)) {
                configured = true;
            }
        }
        o->buffer[side] = bounded && !configured ? most : SMOS__DEFAULT;
    }
}


/* ---- sets ---- */

static void forget(smos__sets_t *s, uint16_t index)
{
    smos__set_t *set = &s->set[index];
    if (index == s->last) s->last = 0;
    uint16_t *link = &s->chain[set->hash % CHAINS];
    while (*link != index) link = &s->set[*link].next;
    *link = set->next;
    for (int i = 0; i < set->count; i++) smos__plan_release(s, set->members[i].plan);
    free(set->members);
    set->members = NULL;
    set->next = s->free;
    s->free = index;
}


void smos__sets_forget(smos__sets_t *s)
{
    for (uint32_t i = 1; i < s->used; i++)
        if (s->set[i].members && !s->set[i].refs) forget(s, (uint16_t)i);
    s->kept = 0;
}


static int make_set(smos__sets_t *s, uint32_t hash, smos__socket_t *const *sockets, uint16_t epoch, const smos__member_t *members, int count, uint16_t *out)
{
    if (s->free == SMOS__NO_SET && s->used == SMOS__MAX_SETS && s->kept) smos__sets_forget(s);
    if (s->free == SMOS__NO_SET && s->used == SMOS__MAX_SETS) return -ENOSPC;
    smos__set_t made = {.refs = 1, .hash = hash, .epoch = epoch, .count = (uint8_t)count};
    int status = smos__set_lay(&made, sockets, members, count);
    if (status) return status;
    join_options(&made, sockets);
    const bool anomalies = (made.mask[0][0] | made.mask[0][1]) & SMOS_BIT(SMOS_ANOMALY); /* some are of streams */
    for (int from = 0; from < 2; from++)
        if (anomalies || made.mask[0][!from] & (SMOS_BIT(SMOS_NEW_DATA) | SMOS_BIT(SMOS_GAP)) || made.options.history[!from]) made.streams |= SMOS__FLOW_STREAM_OF(from);
    for (int i = 0; i < count; i++) {
        smos__plan_hold(members[i].plan);
        made.embedded |= sockets[members[i].slot]->box->embedded;
    }
    uint16_t index = s->free;
    if (index != SMOS__NO_SET)
        s->free = s->set[index].next;
    else
        index = (uint16_t)s->used++;
    made.next = s->chain[hash % CHAINS];
    s->set[index] = made;
    s->chain[hash % CHAINS] = index;
    *out = index;
    return 0;
}


int smos__set_intern(smos__sets_t *s, smos__socket_t *const *sockets, uint16_t epoch, const smos__member_t *members, int count, uint16_t *out)
{
    if (!count) {
        s->set[0].refs++;
        *out = 0;
        return 0;
    }
    if (s->last && count == 1 && s->last_epoch == epoch && memcmp(members, &s->last_member, sizeof *members) == 0) {
        if (!s->set[s->last].refs++) s->kept--;
        *out = s->last;
        return 0;
    }
    uint32_t hash = hash_bytes(epoch, members, (size_t)count * sizeof *members);
    for (uint16_t i = s->chain[hash % CHAINS]; i != SMOS__NO_SET; i = s->set[i].next) {
        smos__set_t *set = &s->set[i];
        if (set->hash != hash || set->epoch != epoch || set->count != count || memcmp(set->members, members, (size_t)count * sizeof *members) != 0) continue;
        if (!set->refs++) s->kept--;
        *out = i;
        if (count == 1) {
            s->last_member = members[0];
            s->last_epoch = epoch;
            s->last = i;
        }
        return 0;
    }
    return make_set(s, hash, sockets, epoch, members, count, out);
}


void smos__set_release(smos__sets_t *s, uint16_t index)
{
    if (--s->set[index].refs || !index) return;
    if (++s->kept > KEPT_MAX) smos__sets_forget(s);
}


void smos__sets_closing(smos__sets_t *s, int slot)
{
    for (uint32_t i = 1; i < s->used; i++) {
        smos__set_t *set = &s->set[i];
        for (int m = 0; set->members && m < set->count; m++)
            if (set->members[m].slot == slot)
                for (int event = 0; event < SMOS_EVENT_COUNT; event++) set->dispatch[event] = smos__dispatch_walk;
    }
}


void smos__sets_keeping(smos__sets_t *s, const smos_box_t *box)
{
    for (uint32_t i = 1; i < s->used; i++) {
        smos__set_t *set = &s->set[i];
        for (int event = 0; set->members && event < SMOS_EVENT_COUNT; event++) {
            if (set->dispatch[event] == smos__dispatch_one && set->route[event]->box == box) set->dispatch[event] = smos__dispatch_one_kept;
            if (set->dispatch[event] == smos__dispatch_one_within && set->route[event]->box == box) set->dispatch[event] = smos__dispatch_one_kept_within;
        }
    }
}
