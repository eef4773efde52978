/* overlap.h: the rules behind smos__overlap_t. */
#ifndef SMOS__OVERLAP_H
#define SMOS__OVERLAP_H

#include <stdbool.h>

#include "tcp/assembler.h"

/* Whether a new segment [start, end) takes the bytes that it shares with an older one [old_start, old_end). */
bool smos__overlap_new_wins(int policy, uint64_t old_start, uint64_t old_end, uint64_t start, uint64_t end);

/* 1 if the rule looks at where the segments begin and end (else one winner, always). */
bool smos__overlap_needs_bounds(int policy);

#endif
