/* sequence.h: arithmetic on sequence numbers modulo 2^32 (RFC 9293 3.4). */
#ifndef SMOS__SEQUENCE_H
#define SMOS__SEQUENCE_H

#include <stdbool.h>
#include <stdint.h>

static inline int32_t smos__seq_diff(uint32_t a, uint32_t b) { return (int32_t)(a - b); }
static inline bool smos__seq_lt(uint32_t a, uint32_t b) { return (int32_t)(a - b) < 0; }
static inline bool smos__seq_leq(uint32_t a, uint32_t b) { return (int32_t)(a - b) <= 0; }
static inline bool smos__seq_gt(uint32_t a, uint32_t b) { return (int32_t)(a - b) > 0; }
static inline bool smos__seq_geq(uint32_t a, uint32_t b) { return (int32_t)(a - b) >= 0; }
static inline uint32_t smos__seq_max(uint32_t a, uint32_t b) { return smos__seq_gt(a, b) ? a : b; }

#endif
