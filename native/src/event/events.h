/* events.h: who is called when. Sockets of active modules sit in slots, in chain order; a flow points to one interned, immutable
 * subscription set (set.h), shared by all flows with equal registrations.
 */
#ifndef SMOS__EVENTS_H
#define SMOS__EVENTS_H

#include <stdbool.h>
#include <string.h>

#include "event/set.h"
#include "flow/arena.h"

#define SMOS__MAX_RAISED 64   /* outcomes that one predicate may raise */

typedef struct smos__slot {
    smos__socket_t *socket; /* NULL: free */
    uint16_t incarnation;
    uint16_t added;    /* epoch in which it came */
    uint16_t replaced; /* epoch of its module's last new version */
    uint16_t filtered; /* epoch of the last version with another filter */
} smos__slot_t;

#define SMOS__CRUMB_ROOM 65536 /* the largest page that Linux has */

typedef struct smos__events {
    union {
        smos_breadcrumb_t crumb; /* its page may be another process's too (segments.c) */
        uint8_t crumb_room[SMOS__CRUMB_ROOM];
    };
    smos__slot_t slots[SMOS_MAX_MODULES];
    smos__socket_t *sockets[SMOS_MAX_MODULES]; /* the same, by slot */
    uint8_t order[SMOS_MAX_MODULES]; /* slots in chain order */
    int count;
    int raw;              /* raw sockets among them */
    int datagrams;        /* of those that want fragments put together before they pass */
    uint16_t epoch;
    smos__sets_t sets;
    smos__arena_t *arena;
    uint32_t sweep;       /* next slot of the arena to refresh after a commit; SMOS__NO_FLOW: done */
    uint16_t swept;       /* epoch that every flow has seen */
    bool all_streams;     /* somebody beside the sockets wants every stream */
    smos__socket_t *closed; /* freed at the burst's end */
    uint64_t unattached;  /* flows that got no set: too many different ones */
    /* the call under way */
    smos_call_t call;     /* of a flow's event; state and context are NULL, and detail, data, offset and length are 0, between calls. No handler's call raises another */
    smos_box_t *current;
    const struct smos__route *predicate; /* the user-defined event being asked */
    uint32_t raised[SMOS__MAX_RAISED];
    int raised_count;
    const smos__socket_t *placed; /* whose state and context the call under way has; NULL: look again */
    bool dropped;         /* verdict on the current packet */
    bool in_packet;
    void (*enter)(void *), (*leave)(void *);
    void *bracket;
    bool entered;         /* or there is none */
} smos__events_t;

int smos__events_init(smos__events_t *, smos__arena_t *); /* Zeroed, but for the breadcrumb. 0, -ENOMEM */
void smos__events_free(smos__events_t *);

/* What a flow's first (or next) packet brings: evaluates filters, gives the flow its set. `ip` as in smos__filter_match. */
void smos__events_attach(smos__events_t *, uint32_t flow, const uint8_t *ip, uint32_t length, uint32_t captured);
/* After commits: carries the flow's memberships over, evaluates new sockets' filters, migrates state. ip NULL: by the tuple alone. */
void smos__events_refresh(smos__events_t *, uint32_t flow, const uint8_t *ip, uint32_t length, uint32_t captured);
void smos__events_detach(smos__events_t *, uint32_t flow);
/* Refreshes up to `limit` flows after a commit. */
void smos__events_sweep(smos__events_t *, uint32_t limit);

/* ---- modules: commit.c ---- */

int smos__events_commit(smos__events_t *, smos_box_t *, smos_box_t **old);
int smos__events_remove(smos__events_t *, const char *name, smos_box_t **old);
/* A socket made while its module runs joins the chain behind the module's others. -ENOSPC. */
int smos__events_open(smos__events_t *, smos__socket_t *);
void smos__events_close(smos__events_t *, smos__socket_t *);

/* ---- sockets of one flow, and templates: watch.c ---- */

/* Changes what the socket wants of one flow, or (SMOS__NO_FLOW) of flows to come. `change` returns 0 or a negative errno, which
 * leaves everything as it was. -ENOTCONN, -ENOSPC, -ENOMEM. */
typedef int (*smos__change_t)(smos__wants_t *, const void *what);
int smos__events_change(smos__events_t *, smos__socket_t *, uint32_t flow, smos__change_t change, const void *what);
/* What it wants now; NULL: the socket does not watch the flow. */
const smos__wants_t *smos__events_wants(smos__events_t *, const smos__socket_t *, uint32_t flow);
/* The socket (NULL: all of the box) gets no more events for the side, SMOS_BOTH: both. */
int smos__events_stop(smos__events_t *, uint32_t flow, const smos_box_t *, const smos__socket_t *, int side);
/* What it keeps of the flow; NULL: no address space. */
smos__watch_t *smos__events_watch(smos__events_t *, smos__socket_t *, uint32_t flow);
/* Calls of the box are told what it keeps: of flows, or of a template. */
void smos__events_keep(smos__events_t *, smos_box_t *);
/* The socket does not watch the flow any more. -ENOTCONN. */
int smos__events_leave(smos__events_t *, uint32_t flow, const smos__socket_t *);
bool smos__events_watches(smos__events_t *, uint32_t flow, const smos_box_t *, const smos__socket_t *); /* socket NULL: any of the box */

/* ---- calls: raise.c ---- */

/* ORPHAN: all sockets whose filter matches. */
void smos__events_raise_orphan(smos__events_t *, smos_call_t *call, const uint8_t *ip, uint32_t length, uint32_t captured);
/* PKT_IN of the raw sockets; ip NULL: a frame without an IP packet. */
void smos__events_raise_raw(smos__events_t *, smos_call_t *call, const uint8_t *ip, uint32_t length, uint32_t captured);
/* A callback of a module that no packet event causes. flow SMOS__NO_FLOW: none. */
void smos__events_call(smos__events_t *, smos_box_t *, uint32_t flow, smos_handler_t, smos_call_t *call);
int smos__events_raise_event(smos__events_t *, const smos_box_t *, uint32_t event);
/* Calls at_burst_end() handlers, frees what was closed, and gives the bracket back. */
void smos__events_end_burst(smos__events_t *, int64_t now_ns);

#endif
