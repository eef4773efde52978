/* box.h: a module as the engine sees it, its sockets, and the events that it defined.
 *
 * A box is made and filled beside the packet thread (PREPARE, init()) and belongs to it alone until it is committed; from then on only
 * the packet thread touches it.
 */
#ifndef SMOS__BOX_H
#define SMOS__BOX_H

#include <stdbool.h>

#include "port/filter.h"
#include "shardmos/engine.h"
#include "tcp/options.h"

#define SMOS__MAX_HANDLERS 64       /* registrations of one socket, on its template or on one flow */
#define SMOS__MAX_DEFINITIONS 16384 /* user-defined events of a module */
#define SMOS__MAX_PENDING 65536     /* timers that init() sets */
#define SMOS__MAX_LINES 16          /* log lines of init() */
#define SMOS__BOX_ERROR 256

/* One registration. */
typedef struct smos__entry {
    uint32_t event; /* smos_event, or user-defined */
    uint8_t hooks;  /* SMOS_SENDER | SMOS_RECEIVER, or 0 for events without a hook */
    uint8_t sides;  /* bit per side */
    uint16_t reserved;
    smos_handler_t call;
    void *arg;
} smos__entry_t;

/* All that one socket wants of a flow. Unused bytes are zero: equal contents compare equal. */
typedef struct smos__wants {
    smos__stream_options_t options;
    uint64_t count;
    smos__entry_t entry[SMOS__MAX_HANDLERS];
} smos__wants_t;

struct smos__plan;
typedef struct smos_box smos_box_t;

/* What a socket keeps of one flow, by the flow's slot. */
typedef struct smos__watch {
    void *context;
    uint64_t read[2]; /* cursors, by receiving side */
} smos__watch_t;

typedef struct smos__socket {
    smos_box_t *box;
    smos_sock_t number;
    uint8_t type;  /* SMOS_STREAM, SMOS_RAW */
    bool closed;
    bool frames;   /* SMOS_OPT_FRAMES */
    bool datagrams; /* SMOS_OPT_DATAGRAMS */
    int slot;      /* in the chain; -1: not committed */
    uint32_t capacity; /* slots of the flow arena */
    smos__filter_t *filter, *orphan_filter; /* NULL: all */
    char *filter_text;
    smos__wants_t wants;      /* the template's */
    struct smos__plan *plan;  /* the same, interned; NULL until committed */
    uint16_t own_set;         /* with this socket alone: what packets without a flow call */
    void *context;            /* the template's */
    smos__watch_t *watches;   /* reserved by slot when first needed */
    struct smos__socket *next; /* closed, to be freed after the burst */
} smos__socket_t;

/* A user-defined event. */
typedef struct smos__definition {
    uint32_t parent;
    uint32_t root;               /* the built-in event above */
    smos_predicate_t predicate;  /* NULL: its parent's predicate raises it */
    void *arg;                   /* owned */
    size_t arg_size;
    uint32_t users;              /* times defined; 0: removed */
} smos__definition_t;

/* A timer that waits for the commit. */
typedef struct smos__pending {
    uint64_t number; /* once armed */
    int64_t delay_ns, period_ns;
    smos_handler_t call;
    void *arg;
} smos__pending_t;

/* A log line that waits for the commit. */
typedef struct smos__line {
    int level;
    char *text; /* owned */
} smos__line_t;

/* Made by module/, owned by whoever prepared it, lent to the shard from commit to removal. */
struct smos_box {
    /* what a call looks at, together */
    void *self;
    bool per_flow;         /* calls have a state or a context: it has state_size, or set a context */
    bool undefined;        /* one of its definitions was removed */
    uint32_t untimed[16];  /* calls until the next that is timed, by event as in stats.event_calls, which count the rounds that are over */
    char name[64];
    char version[72];
    smos_module_t module;  /* strings copied for boxes of the embedder */
    void (*release)(void *self); /* embedder's; NULL for C modules */
    void *library;         /* dlopen handle, NULL for the embedder's */
    int library_fd;
    bool embedded;         /* calls need the bracket (GIL) */
    bool active;           /* committed: its calls come from the packet thread */
    uint32_t capacity;     /* of its sockets */
    smos__socket_t *sockets[SMOS_MAX_MODULES]; /* by the low byte of their number; 0 is the manifest's */
    uint32_t socket_turn;  /* high bytes of the next number */
    smos__definition_t *definitions; /* event SMOS_USER_EVENT + i */
    uint32_t definition_count;
    smos_handler_t burst_end; /* NULL: none */
    void *burst_arg;
    smos__pending_t *pending;
    uint32_t pending_count, pending_room;
    smos__line_t lines[SMOS__MAX_LINES];
    uint32_t line_count;
    uint8_t *state;        /* module.state_size bytes per slot of the arena, reserved, touched when used */
    size_t state_bytes;
    struct smos_box *old;  /* whose per-flow state is still to be migrated */
    volatile bool idle;    /* the shard does not use it any more */
    char **param_names, **param_values;
    int param_count;
    char last_error[SMOS__BOX_ERROR];
    smos_stats_module_t stats;
};

#define SMOS__CYCLE_SAMPLE 16 /* one call in so many is timed */

/* The hooks at which an event is raised when its registration names none; 0: it has no hook. */
uint8_t smos__default_hooks(uint32_t event);

/* socket.c */
/* NULL: out of memory, or the box has SMOS_MAX_MODULES of them. */
smos__socket_t *smos__socket_make(smos_box_t *, int type);
void smos__socket_free(smos__socket_t *); /* frees memory only; its plan and set were released */
smos__socket_t *smos__socket_find(const smos_box_t *, smos_sock_t); /* NULL: no such socket, or closed */
int smos__socket_filter(smos__socket_t *, const char *filter, const char *orphan_filter, char *why, size_t size);
/* As smos__events_watch, which everybody else calls; reserves the memory at the first call. */
smos__watch_t *smos__socket_watch(smos__socket_t *, uint32_t flow);

/* wants.c: pure. hook and side as in smos_registration. */
void smos__wants_init(smos__wants_t *);
int smos__wants_add(smos__wants_t *, const smos_box_t *, uint32_t event, int hook, int side, smos_handler_t, void *arg);
int smos__wants_remove(smos__wants_t *, uint32_t event, smos_handler_t, const void *arg); /* handler NULL: all of the event */
int smos__wants_option(smos__wants_t *, int side, int option, uint64_t value);

/* define.c */
int smos__define(smos_box_t *, uint32_t parent, smos_predicate_t, const void *arg, size_t arg_size, uint32_t *out);
int smos__undefine(smos_box_t *, uint32_t event);
void smos__definitions_free(smos_box_t *);
/* NULL: no such event, or removed (also by a parent's removal). */
const smos__definition_t *smos__definition(const smos_box_t *, uint32_t event);

#endif
