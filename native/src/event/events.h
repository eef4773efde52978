/* events.h: who is called when. Active modules sit in slots, in chain order; a flow points to one interned, immutable
 * subscription set, shared by all flows with equal registrations.
 */
#ifndef SMOS__EVENTS_H
#define SMOS__EVENTS_H

#include <stdbool.h>

#include "flow/arena.h"
#include "port/filter.h"
#include "shardmos/engine.h"

#define SMOS__MAX_HANDLERS 64
#define SMOS__MAX_SETS 65535
#define SMOS__MAX_ROUTES 255 /* handlers of all active modules together */
#define SMOS__CYCLE_SAMPLE 16 /* one call in so many is timed */

typedef struct smos__handler {
    smos_handler_t call;
    uint8_t hooks; /* SMOS_SENDER | SMOS_RECEIVER, or 0 for events without a hook */
    uint8_t sides; /* bit per side */
} smos__handler_t;

/* A module as the engine sees it. Made by module/, owned by whoever prepared it, lent to the shard from commit to removal. */
struct smos_box {
    char name[64];
    char version[72];
    smos_module_t module;  /* strings copied for boxes of the embedder */
    void *self;
    void (*release)(void *self); /* embedder's; NULL for C modules */
    void *library;         /* dlopen handle, NULL for the embedder's */
    int library_fd;
    bool embedded;         /* calls need the bracket (GIL) */
    smos__filter_t *filter;
    uint8_t first[SMOS_EVENT_COUNT + 1]; /* handlers of event i: first[i] to first[i + 1] */
    smos__handler_t handlers[SMOS__MAX_HANDLERS];
    uint32_t mask[3][2];   /* events wanted, by hook and side */
    uint8_t *state;        /* state_stride bytes per slot of the arena, reserved, touched when used */
    size_t state_bytes;
    struct smos_box *old;  /* whose per-flow state is still to be migrated */
    volatile bool idle;    /* the shard does not use it any more */
    char **param_names, **param_values;
    int param_count;
    smos_stats_module_t stats;
};

typedef struct smos__member {
    uint8_t slot;
    uint8_t sides; /* bit per side still monitored */
    uint16_t incarnation; /* of the slot: a removed module's members are dropped at the next refresh */
} smos__member_t;

/* One handler of one member, ready to be called. */
typedef struct smos__route {
    smos_handler_t call;
    struct smos_box *box;
    uint8_t slot;
    uint8_t hooks;
    uint8_t sides; /* bit per side that is registered and still monitored */
} smos__route_t;

typedef struct smos__set {
    uint32_t refs;
    uint32_t hash;
    uint16_t next; /* in its hash chain or the free list */
    uint16_t epoch;
    uint8_t count;
    bool stream; /* somebody wants bytes */
    uint32_t any; /* events wanted at any hook and side */
    uint32_t mask[3][2];
    uint8_t first[SMOS_EVENT_COUNT + 1]; /* routes of event i: first[i] to first[i + 1], in chain order */
    smos__member_t members[SMOS_MAX_MODULES];
    uint8_t back[SMOS__MAX_ROUTES]; /* the same in reverse order of modules, for packets of the server */
    smos__route_t routes[SMOS__MAX_ROUTES];
} smos__set_t;

typedef struct smos__slot {
    smos_box_t *box; /* NULL: free */
    uint16_t incarnation;
    uint16_t added;    /* epoch in which it came */
    uint16_t replaced; /* epoch of its last new version */
} smos__slot_t;

typedef struct smos__events {
    smos__slot_t slots[SMOS_MAX_MODULES];
    uint8_t order[SMOS_MAX_MODULES]; /* slots in chain order */
    int count;
    uint16_t epoch;
    smos__set_t *sets;    /* reserved for SMOS__MAX_SETS; set 0 is the empty one */
    uint32_t sets_used;
    uint16_t free_set;
    uint16_t chains[1024];
    smos__arena_t *arena;
    uint32_t sweep;       /* next slot of the arena to refresh after a commit; SMOS__NO_FLOW: done */
    /* the call under way */
    smos_box_t *current;
    bool dropped;         /* verdict on the current packet */
    bool in_packet;
    smos_breadcrumb_t *crumb;
    void (*enter)(void *), (*leave)(void *);
    void *bracket;
    bool entered;
} smos__events_t;

int smos__events_init(smos__events_t *, smos__arena_t *); /* 0, -ENOMEM */
void smos__events_free(smos__events_t *);

/* What a flow's first (or next) packet brings: evaluates filters, gives the flow its set. `ip` as in smos__filter_match. */
void smos__events_attach(smos__events_t *, uint32_t flow, const uint8_t *ip, uint32_t length, uint32_t captured);
/* After commits: carries the flow's memberships over, evaluates new modules' filters, migrates state. ip NULL: by the tuple alone. */
void smos__events_refresh(smos__events_t *, uint32_t flow, const uint8_t *ip, uint32_t length, uint32_t captured);
void smos__events_detach(smos__events_t *, uint32_t flow);
int smos__events_stop(smos__events_t *, uint32_t flow, const smos_box_t *, int side);
/* Refreshes up to `limit` flows after a commit. */
void smos__events_sweep(smos__events_t *, uint32_t limit);

int smos__events_commit(smos__events_t *, smos_box_t *, smos_box_t **old);
int smos__events_remove(smos__events_t *, const char *name, smos_box_t **old);

static inline bool smos__events_wanted(const smos__events_t *ev, const smos__flow_t *f, smos_event_t event, int side, int hook)
{
    return ev->sets[f->set].mask[hook][side] & SMOS_BIT(event);
}

/* Calls every handler of call->event at (call->side, call->hook), in chain order for packets of the client and reversed for those of
 * the server; stops when one drops the packet. Fills call->flow, state, tuple. Only if smos__events_wanted. */
void smos__events_raise(smos__events_t *, uint32_t flow, smos_call_t *call);
/* ORPHAN: all active modules whose filter matches. */
void smos__events_raise_orphan(smos__events_t *, smos_call_t *call, const uint8_t *ip, uint32_t length, uint32_t captured);
static inline void smos__events_end_burst(smos__events_t *ev)
{
    if (ev->entered) {
        ev->entered = false;
        ev->leave(ev->bracket);
    }
}

#endif
