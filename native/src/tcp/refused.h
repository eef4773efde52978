/* refused.h: segments with data that a receiver should refuse (RFC 9293 3.10.7.4, RFC 7323 5.3), kept for a while in a ring of the shard's. If the
 * receiver acknowledges their bytes and no other copy came, it took them: what it does counts, not what it should do. */
#ifndef SMOS__REFUSED_H
#define SMOS__REFUSED_H

#include <stdint.h>

#include "flow/flow.h"

#define SMOS__REFUSED_SEGMENTS 32
#define SMOS__REFUSED_BYTES (64u << 10)
#define SMOS__REFUSED_LONGEST (SMOS__REFUSED_BYTES / 4)

typedef struct smos__refused_segment {
    const smos__flow_t *flow; /* NULL: none */
    uint32_t generation;      /* of the flow; without its bit 0 */
    uint32_t seq, length;
    uint8_t from;
    uint64_t at; /* its first byte's place, counted without end */
} smos__refused_segment_t;

typedef struct smos__refused {
    smos__refused_segment_t segment[SMOS__REFUSED_SEGMENTS];
    uint64_t used; /* bytes written, counted without end */
    uint32_t next;
    uint8_t bytes[SMOS__REFUSED_BYTES];
} smos__refused_t;

#endif
