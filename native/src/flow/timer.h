/* timer.h: one deadline per flow on a wheel of packet time, one second a bucket, lazily moved.
 *
 * A packet does not touch the wheel: when a flow's bucket comes up, the caller looks at the flow's last packet and sets it again
 * if it lives. Expiry itself is decided by packet time at look-up; the wheel only collects.
 */
#ifndef SMOS__TIMER_H
#define SMOS__TIMER_H

#include "flow/arena.h"

#define SMOS__WHEEL_BUCKETS 1024 /* deadlines further ahead wait in the last bucket and are set again */
#define SMOS__SECOND INT64_C(1000000000)

typedef struct smos__wheel {
    uint32_t head[SMOS__WHEEL_BUCKETS];
    int64_t tick; /* seconds: buckets up to it were emptied */
    int started;
} smos__wheel_t;

void smos__wheel_init(smos__wheel_t *);
void smos__wheel_start(smos__wheel_t *, int64_t now_ns); /* with the first packet's time, before anything is set */
void smos__wheel_set(smos__wheel_t *, smos__arena_t *, uint32_t index, int64_t deadline_ns);
void smos__wheel_clear(smos__wheel_t *, smos__arena_t *, uint32_t index);
/* Takes one flow whose bucket lies in the past off the wheel, SMOS__NO_FLOW if there is none up to now. */
uint32_t smos__wheel_pop(smos__wheel_t *, smos__arena_t *, int64_t now_ns);

/* First in, first out: flows that were begun and not yet confirmed by both ends, oldest first. */
typedef struct smos__queue {
    uint32_t head, tail, count;
} smos__queue_t;

void smos__queue_init(smos__queue_t *);
void smos__queue_push(smos__queue_t *, smos__arena_t *, uint32_t index);
void smos__queue_remove(smos__queue_t *, smos__arena_t *, uint32_t index);

#endif
