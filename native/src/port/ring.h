/* ring.h: what the dealer needs of the hand-over ring beyond port.h. */
#ifndef SMOS__RING_H
#define SMOS__RING_H

#include "port/port.h"

/* 1 pushed, 0 full (counted). The port over the ring shows them as its epoch and now_ns, in order with the frames. */
int smos__ring_push_epoch(smos__ring_t *, uint64_t epoch);
int smos__ring_push_clock(smos__ring_t *, int64_t time_ns);
uint64_t smos__ring_full(const smos__ring_t *); /* pushes that found it full */

/* The consumer found nothing and is going to sleep: the producer's next smos__ring_wants_bell says so. 1: something came meanwhile. */
int smos__ring_sleeps(smos__ring_t *);

#endif
