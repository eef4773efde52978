/* timers.h: a module's timers on packet time: a binary heap by due time, entries found by number for cancelling. */
#ifndef SMOS__TIMERS_H
#define SMOS__TIMERS_H

#include "event/events.h"

#define SMOS__MAX_TIMERS (1u << 20)
#define SMOS__NO_TIMER_NS INT64_MAX

typedef struct smos__timer {
    int64_t due_ns, period_ns; /* period 0: once */
    smos_flow_t flow;          /* 0: of the module */
    smos_box_t *box;           /* NULL: free */
    smos_handler_t call;
    void *arg;
    uint64_t order;            /* among those due at the same time: as they were set */
    uint32_t place;            /* in the heap; of a free entry: the next free one */
    uint32_t turn;             /* of the entry: stale numbers are told */
} smos__timer_t;

typedef struct smos__timers {
    int64_t next_ns;  /* when the first is due; SMOS__NO_TIMER_NS: none */
    smos__timer_t *entry;
    uint32_t *heap;
    uint64_t orders;  /* given so far */
    uint32_t count, room, used, free;
} smos__timers_t;

void smos__timers_init(smos__timers_t *);
void smos__timers_free(smos__timers_t *);
/* 0, -ENOSPC, -ENOMEM. *number (may be NULL) is never 0. */
int smos__timers_set(smos__timers_t *, const smos__timer_t *, uint64_t *number);
int smos__timers_cancel(smos__timers_t *, const smos_box_t *, uint64_t number); /* -ENOENT: over, or another module's */
void smos__timers_drop(smos__timers_t *, const smos_box_t *); /* all of the module */
/* Takes the first one that is due out (a periodic one goes back in, late ones once) and copies it. *number is 0 if it is over. */
bool smos__timers_due(smos__timers_t *, int64_t now_ns, smos__timer_t *out, uint64_t *number);
/* All are due that much later: time began. */
void smos__timers_shift(smos__timers_t *, int64_t by_ns);

#endif
