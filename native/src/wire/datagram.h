/* datagram.h: one datagram under reassembly.
 *
 * Its fragments are kept as they came, one after the other, in a chain of chunks (the log): a mark, then the data. A bitmap of 8-byte
 * units tells what has come. The overlap policy is applied once, when the datagram is complete, by reading the log in order of arrival. So
 * a fragment costs what copying it costs, in whatever order fragments come. */
#ifndef SMOS__DATAGRAM_H
#define SMOS__DATAGRAM_H

#include <stdbool.h>

#include "wire/defrag.h"
#include "wire/fragment.h"

#define SMOS__CHUNK 1024u
#define SMOS__NO_CHUNK UINT32_MAX
#define SMOS__UNITS 8192u /* of 8 bytes in a datagram; as bits they are one chunk */
#define SMOS__LOG_MAX (160u * 1024) /* bytes of a datagram's log: all of it twice, and more */

typedef struct smos__chunks {
    uint8_t *data;
    uint32_t *next;
    uint32_t count, fresh, free, used;
} smos__chunks_t;

typedef struct smos__datagram {
    uint32_t bits;        /* chunk of the bitmap; SMOS__NO_CHUNK: none yet */
    uint32_t first, last; /* chunks of the log */
    uint32_t log_bytes;
    uint32_t end;     /* where the data ends; UINT32_MAX: not known yet */
    uint32_t highest; /* end of the farthest fragment */
    uint32_t largest; /* bytes of data of the largest but the last */
    uint32_t covered; /* units */
    uint32_t records;
    uint32_t work;    /* done on comparing fragments */
    uint32_t header_length, next_at;
    uint8_t version, protocol; /* of the first fragment, once it came */
    bool has_header, overlapped;
    uint8_t policy;   /* smos__defrag_policy of its destination */
} smos__datagram_t;

/* Which bytes a fragment shares with those that came before. */
typedef struct smos__overlaps {
    bool any, copy, inside, different; /* copy: one of the same place and bytes; inside: begins inside another and ends before its end */
} smos__overlaps_t;

void smos__datagram_init(smos__datagram_t *, const smos__fragment_t *);
/* Gives its chunks back. */
void smos__datagram_clear(smos__datagram_t *, smos__chunks_t *);
/* Chunks that the fragment needs beyond what the datagram has. */
uint32_t smos__datagram_needs(const smos__datagram_t *, const smos__fragment_t *);
smos__overlaps_t smos__datagram_overlaps(smos__datagram_t *, const smos__chunks_t *, const smos__fragment_t *);
/* The chunks that it needs must be there. */
void smos__datagram_add(smos__datagram_t *, smos__chunks_t *, const smos__fragment_t *);

static inline bool smos__datagram_complete(const smos__datagram_t *g)
{
    return g->end != UINT32_MAX && g->covered == (g->end + 7) / 8;
}

/* Where a complete datagram is put together: for each unit the record that owns it, for each record its place. */
typedef struct smos__join {
    uint16_t owner[SMOS__UNITS];
    struct {
        uint32_t start, end;
    } record[];
} smos__join_t;

/* Writes header_length + end bytes. */
void smos__datagram_join(const smos__datagram_t *, const smos__chunks_t *, smos__join_t *, int policy, uint8_t *out);

bool smos__defrag_new_wins(int policy, uint32_t old_start, uint32_t old_end, uint32_t start, uint32_t end);

#endif
