/* handover.h: what other workers took from the wire for this one, as a port: their rings, and one bell that they ring when it sleeps. */
#ifndef SMOS__HANDOVER_H
#define SMOS__HANDOVER_H

#include "port/ring.h"

/* A ring in zeroed memory of `bytes`, which both sides may open in any order, and open again after a crash: the producer goes on behind what it
 * had pushed, the consumer behind what was in the hands of the one before it (counted as poison). NULL: too small, or out of memory. */
smos__ring_t *smos__ring_open(void *memory, size_t bytes, bool producer, uint64_t *lost);
/* The producer's side, after pushes: true once if the consumer sleeps, whose bell is then to be rung. */
bool smos__ring_wants_bell(smos__ring_t *);

/* Takes the rings over. `bell` is an eventfd and stays the caller's. Frames come with SMOS__FRAME_HANDED. */
smos__port_t *smos__handover_open(smos__ring_t **rings, int count, int bell, char *error);

#endif
