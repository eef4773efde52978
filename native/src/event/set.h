/* set.h: interned, immutable lists of what to call. A *plan* is what one socket wants of a flow; a *set* is the plans of all sockets
 * that watch it, in chain order, laid out as the calls of each event. Flows with equal registrations share one set, so registering the
 * same on a million flows costs one set, and an event's dispatch is a walk over an array.
 */
#ifndef SMOS__SET_H
#define SMOS__SET_H

#include "event/box.h"

#define SMOS__MAX_SETS 65535
#define SMOS__MAX_PLANS 65536
#define SMOS__MAX_ROUTES 1000 /* calls of one set, predicates of user-defined events included */
#define SMOS__NO_SET UINT16_MAX

typedef struct smos__plan {
    struct smos__plan *next; /* in its hash chain */
    uint32_t refs;
    uint32_t hash;
    smos__wants_t wants;
} smos__plan_t;

typedef struct smos__member {
    uint8_t slot;
    uint8_t sides; /* bit per side still monitored */
    uint16_t incarnation; /* of the slot: a removed socket's members are dropped at the next refresh */
    uint32_t reserved;
    smos__plan_t *plan; /* held by the set */
} smos__member_t;

#define SMOS__HOOKLESS 0xff

typedef enum smos__route_kind { SMOS__CALL, SMOS__PREDICATE, SMOS__RAISED } smos__route_kind_t;

/* One step of an event's walk: a handler, or a user-defined event whose own steps follow and are skipped where it did not happen. */
typedef struct smos__route {
    union {
        smos_handler_t handler;
        smos_predicate_t predicate;
    } call;
    uint32_t id;         /* event; from here on as in smos_call_t */
    smos_sock_t number;
    void *arg;
    smos__socket_t *socket;
    smos_box_t *box;
    uint16_t skip;       /* steps under it */
    uint8_t sides;
    uint8_t hooks;       /* of what is under it, too; SMOS__HOOKLESS where its event has none */
    uint8_t kind;
    uint8_t depth;       /* 0: right under the built-in event; stops at 255 */
    uint8_t slot;        /* plus 1, as in the breadcrumb */
    uint8_t where;       /* SMOS__WHERE of each side and hook that it is called at */
} smos__route_t;

/* A bit per side and hook at which an event is raised; without a hook it is for routes of all hooks. */
#define SMOS__WHERE(side, hook) (1u << (2 * (hook) + (side)))

/* How an event's routes are gone through, by what they are (raise.c). Only where the set's mask says that the event is wanted; what happened is in events->call. */
struct smos__events;
struct smos__set;
typedef void (*smos__dispatch_t)(struct smos__events *, struct smos__set *of_flow, size_t event);
void smos__dispatch_walk(struct smos__events *, struct smos__set *, size_t event);     /* any */
void smos__dispatch_one(struct smos__events *, struct smos__set *, size_t event);      /* a handler of a module that keeps nothing of flows */
void smos__dispatch_one_kept(struct smos__events *, struct smos__set *, size_t event); /* of one that does */
void smos__dispatch_filtered(struct smos__events *, struct smos__set *, size_t event); /* a predicate and a handler under it */
/* The same for modules that need the bracket. */
void smos__dispatch_one_within(struct smos__events *, struct smos__set *, size_t event);
void smos__dispatch_one_kept_within(struct smos__events *, struct smos__set *, size_t event);
void smos__dispatch_filtered_within(struct smos__events *, struct smos__set *, size_t event);

typedef struct smos__set {
    uint32_t refs;
    uint32_t hash;
    uint16_t next; /* in its hash chain or the free list */
    uint16_t epoch;
    uint8_t count;
    bool embedded; /* a call may need the bracket */
    uint16_t streams; /* SMOS__FLOW_STREAMS: whose bytes somebody wants */
    uint32_t mask[3][2]; /* built-in events wanted, by hook and side */
    smos__stream_options_t options; /* of all members together */
    smos__member_t *members; /* one allocation: members, routes in chain order, and routes the other way */
    smos__dispatch_t dispatch[SMOS_EVENT_COUNT];
    const smos__route_t *route[SMOS_EVENT_COUNT + 1]; /* of event i: route[i] to route[i + 1] */
} smos__set_t;

_Static_assert(sizeof(smos__set_t) == 256, "found by a shift");

/* The routes of an event with the sockets in reverse order, for packets of the server. */
static inline const smos__route_t *smos__route_back(const smos__set_t *s, size_t event)
{
    return (const smos__route_t *)(const void *)((const char *)s->route[event] + ((const char *)s->route[SMOS_EVENT_COUNT] - (const char *)s->route[0]));
}

typedef struct smos__sets {
    smos__set_t *set;    /* reserved for SMOS__MAX_SETS; set 0 is the empty one */
    uint32_t used;
    uint32_t kept;       /* without flows, kept in case the same is wanted again */
    uint16_t free;
    uint16_t chain[4096];
    smos__plan_t *plans[4096];
    uint32_t plan_count;
    /* what was interned last, if it has one member: most flows want the same */
    smos__member_t last_member;
    uint16_t last_epoch;
    uint16_t last;       /* 0: none */
} smos__sets_t;

/* lay.c: the set's members (a copy), routes, masks and dispatch; all else is left alone. -ENOMEM, -ENOSPC beyond SMOS__MAX_ROUTES. */
int smos__set_lay(smos__set_t *, smos__socket_t *const *sockets, const smos__member_t *, int count);

int smos__sets_init(smos__sets_t *); /* 0, -ENOMEM */
void smos__sets_free(smos__sets_t *);

/* The plan of these wants, held for the caller; NULL: out of memory or SMOS__MAX_PLANS. */
smos__plan_t *smos__plan_intern(smos__sets_t *, const smos__wants_t *);
void smos__plan_hold(smos__plan_t *);
void smos__plan_release(smos__sets_t *, smos__plan_t *);

/* The set of these members (socket of slot i: `sockets[i]`), held for the caller. -ENOSPC beyond SMOS__MAX_SETS or SMOS__MAX_ROUTES, -ENOMEM. */
int smos__set_intern(smos__sets_t *, smos__socket_t *const *sockets, uint16_t epoch, const smos__member_t *, int count, uint16_t *out);
void smos__set_release(smos__sets_t *, uint16_t set);
/* A socket in this slot is closed while calls may be under way: sets that have it are walked with care. */
void smos__sets_closing(smos__sets_t *, int slot);
/* The box keeps something of flows from now on. */
void smos__sets_keeping(smos__sets_t *, const smos_box_t *);
/* Sets that no flow has are forgotten. */
void smos__sets_forget(smos__sets_t *);

#endif
