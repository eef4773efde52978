/* block.h: one block of buffered bytes, and whose they are.
 *
 * Bytes grow from the front of the room, runs from its back. A run is a stretch of bytes that came with one segment; it keeps
 * how far that segment reached beyond the stretch, because the overlap rules ask for it. Under rules that do not ask, a block has one run. */
#ifndef SMOS__BLOCK_H
#define SMOS__BLOCK_H

#include "tcp/pool.h"

typedef struct smos__run {
    uint16_t end;    /* within the block; it begins where the run before ends */
    uint16_t before; /* bytes of its segment before the run */
    uint16_t after;
} smos__run_t;

typedef struct smos__block {
    uint64_t offset;
    uint32_t next, prev;
    uint16_t length;
    uint16_t runs;
    uint16_t room; /* bytes and runs */
    uint16_t reserved;
    uint8_t data[];
} smos__block_t;

/* A segment is cut in pieces of this length: before and after are 16 bits. */
#define SMOS__SEGMENT_MAX UINT16_MAX
/* Runs in a block: each has at least a byte. Two more while one is changed. */
#define SMOS__RUNS_MAX ((SMOS__BLOCK_LARGE - sizeof(smos__block_t)) / (sizeof(smos__run_t) + 1))
#define SMOS__SMALL_FITS (SMOS__BLOCK_SMALL - sizeof(smos__block_t) - sizeof(smos__run_t)) /* bytes of one run */

static inline smos__block_t *smos__block_at(const smos__pool_t *p, uint32_t i) { return smos__pool_at(p, i); }
static inline uint64_t smos__block_end(const smos__block_t *b) { return b->offset + b->length; }

static inline smos__run_t *smos__block_run(const smos__block_t *b, uint32_t k)
{
    return (smos__run_t *)(uintptr_t)(b->data + b->room) - 1 - k;
}

static inline uint32_t smos__run_begin(const smos__block_t *b, uint32_t k) { return k ? smos__block_run(b, k - 1)->end : 0; }
static inline uint64_t smos__run_owner_start(const smos__block_t *b, uint32_t k)
{
    return b->offset + smos__run_begin(b, k) - smos__block_run(b, k)->before;
}
static inline uint64_t smos__run_owner_end(const smos__block_t *b, uint32_t k)
{
    return b->offset + smos__block_run(b, k)->end + smos__block_run(b, k)->after;
}

/* An empty block of the pool, not linked; the small size if it fits that many bytes, the other one if there is none. */
uint32_t smos__block_take(smos__pool_t *, uint32_t bytes);

/* Appends the segment's bytes [at, limit) as far as there is room, `at` being the block's end; returns how many. */
uint32_t smos__block_append(smos__block_t *, const uint8_t *data, uint64_t at, uint64_t limit, uint64_t segment_start, uint64_t segment_end, bool bounds);

/* Gives [from, to) of the block to the segment where the policy lets it win: changes bytes and runs. Returns false, with nothing
 * changed, if the runs need a second block and *spare is SMOS__NO_BLOCK; then it may be called again with *spare a block of the same size. It
 * is set to SMOS__NO_BLOCK if it was used: it then holds the block's second part, not linked. `data` is the byte at `from`. */
bool smos__block_overlay(smos__pool_t *, smos__block_t *, const uint8_t *data, uint64_t from, uint64_t to, uint64_t segment_start,
                         uint64_t segment_end, int policy, uint32_t *spare);

/* Drops the bytes below offset, which lies within the block. */
void smos__block_trim(smos__block_t *, uint64_t offset);

#endif
