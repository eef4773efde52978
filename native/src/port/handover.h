/* handover.h: what another worker took from the wire for this one, as a port: its ring, and a bell that it rings when this one sleeps. */
#ifndef SMOS__HANDOVER_H
#define SMOS__HANDOVER_H

#include "port/ring.h"

/* A ring in zeroed memory of `bytes`, which both sides may open in any order, and open again after a crash: the producer goes on behind what it
 * had pushed, the consumer behind what was in the hands of the one before it (counted as poison). NULL: too small, or out of memory. */
smos__ring_t *smos__ring_open(void *memory, size_t bytes, bool producer, uint64_t *lost);
/* The producer's side, after pushes: true once if the consumer sleeps, whose bell is then to be rung. */
bool smos__ring_wants_bell(smos__ring_t *);

/* How far the producer is: everything that it took from the wire up to then was pushed. It says so while the consumer wants to know. */
void smos__ring_want_clock(smos__ring_t *, int64_t until_ns);
int64_t smos__ring_clock(const smos__ring_t *);
bool smos__ring_clock_wanted(const smos__ring_t *, int64_t now_ns);
void smos__ring_set_clock(smos__ring_t *, int64_t time_ns);

/* Takes the ring over. `bell` is an eventfd that stays the caller's, or -1 where another of its ports has it. Frames come with SMOS__FRAME_HANDED. */
smos__port_t *smos__handover_open(smos__ring_t *, int bell, char *error);

#endif
