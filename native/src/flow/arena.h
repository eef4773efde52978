/* arena.h: the slots of the flows, in the state segment. */
#ifndef SMOS__ARENA_H
#define SMOS__ARENA_H

#include <stdbool.h>

#include "flow/flow.h"

/* Start of the state segment. Everything else is found from here; offsets are bytes from the segment's start. */
typedef struct smos__arena_header {
    uint8_t magic[8]; /* "SMOSFLOW" */
    uint32_t version; /* 2 */
    uint32_t capacity;
    uint32_t hot_bytes, cold_bytes, conn_bytes; /* of one record */
    uint32_t free_head;
    uint64_t hot_offset, cold_offset, conn_offset, pool_offset, bytes;
    uint32_t high_water; /* slots ever used */
    uint32_t in_use;
} smos__arena_header_t;

typedef struct smos__arena {
    smos__arena_header_t *header;
    smos__flow_t *hot;
    smos__flow_cold_t *cold;
    smos__flow_conn_t *conn;
    smos__pool_t *pool; /* out-of-order bytes */
} smos__arena_t;

size_t smos__arena_bytes(uint32_t capacity, size_t pool_bytes);
/* Lays an arena out in zeroed memory of smos__arena_bytes. */
void smos__arena_init(smos__arena_t *, void *memory, uint32_t capacity, size_t pool_bytes);

/* A slot with a new incarnation, marked as being written; SMOS__NO_FLOW when none is free. Hot and cold are zeroed but for it; conn is smos__zeek_init's. */
uint32_t smos__arena_take(smos__arena_t *);
void smos__arena_give(smos__arena_t *, uint32_t index);

/* Brings a slot that is needed soon into the cache, but for its conn. */
static inline void smos__arena_fetch(const smos__arena_t *a, uint32_t index)
{
    const char *f = (const char *)&a->hot[index], *c = (const char *)&a->cold[index];
    for (size_t line = 0; line < sizeof *a->hot; line += 64) __builtin_prefetch(f + line, 1);
    for (size_t line = 0; line < sizeof *a->cold; line += 64) __builtin_prefetch(c + line, 1);
    __builtin_prefetch(c + sizeof *a->cold - 1, 1); /* records do not begin with a line */
}

/* Torn-write marks (see DESIGN: generation is odd while a slot is written). */
static inline void smos__flow_begin(smos__flow_t *f) { f->generation |= 1; __atomic_signal_fence(__ATOMIC_SEQ_CST); }
static inline void smos__flow_commit(smos__flow_t *f) { __atomic_signal_fence(__ATOMIC_SEQ_CST); f->generation &= ~1u; }

static inline smos_flow_t smos__flow_handle(const smos__arena_t *a, uint32_t index)
{
    return ((uint64_t)(a->hot[index].generation >> 1) << 32) | index;
}

/* The slot of a handle, or SMOS__NO_FLOW if it is stale or none. */
static inline uint32_t smos__flow_find(const smos__arena_t *a, smos_flow_t handle)
{
    uint32_t index = (uint32_t)handle;
    if (index >= a->header->high_water || a->hot[index].class_ == SMOS__CLASS_FREE) return SMOS__NO_FLOW;
    return (a->hot[index].generation >> 1) == (uint32_t)(handle >> 32) ? index : SMOS__NO_FLOW;
}

#endif
