/* assembler.h: the out-of-order bytes of one direction of a stream. Pure: no I/O, no globals; memory comes from a block pool
 * that the caller lays out (in the worker's state segment), addressed by 32-bit indices, so a copy at another address works.
 *
 * The caller delivers in-order bytes itself, straight from the packet, and brings here only what lies beyond `next`, the offset of
 * the first byte not yet delivered. Offsets are 64-bit and relative to the start of the stream: no wrap here.
 */
#ifndef SMOS__ASSEMBLER_H
#define SMOS__ASSEMBLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whose bytes win where two segments overlap and neither was delivered: the 13 target-based policies of Suricata and Snort
 * (first and last beside the eleven by system), after Novak and Sturges, "Target-Based TCP Stream Reassembly" (2007). */
typedef enum smos__overlap {
    SMOS__OVERLAP_FIRST, SMOS__OVERLAP_LAST, SMOS__OVERLAP_BSD, SMOS__OVERLAP_LINUX, SMOS__OVERLAP_OLD_LINUX,
    SMOS__OVERLAP_SOLARIS, SMOS__OVERLAP_OLD_SOLARIS, SMOS__OVERLAP_HPUX10, SMOS__OVERLAP_HPUX11, SMOS__OVERLAP_IRIX, SMOS__OVERLAP_MACOS,
    SMOS__OVERLAP_WINDOWS, SMOS__OVERLAP_WINDOWS2K3, SMOS__OVERLAP_VISTA, SMOS__OVERLAP_BSD_RIGHT, SMOS__OVERLAP_POLICIES
} smos__overlap_t;

#define SMOS__NO_BLOCK 0

/* A pool of fixed-size blocks (two sizes, small and large, so that 1-byte segments do not cost 2 KiB each). */
typedef struct smos__pool smos__pool_t;
size_t smos__pool_bytes(size_t data_bytes);                       /* memory for about data_bytes of blocks */
smos__pool_t *smos__pool_init(void *memory, size_t data_bytes);
uint64_t smos__pool_used(const smos__pool_t *);                   /* bytes of blocks handed out */
uint64_t smos__pool_size(const smos__pool_t *);

/* Per direction; all zero when empty. 16 bytes, lives in the flow. */
typedef struct smos__assembler {
    uint32_t head;  /* first block, ordered by offset; blocks never overlap */
    uint32_t tail;  /* last block: the common insert is at the end */
    uint32_t bytes; /* buffered */
    uint16_t segments; /* blocks */
    uint16_t reserved;
} smos__assembler_t;

void smos__assembler_init(smos__assembler_t *);
void smos__assembler_clear(smos__assembler_t *, smos__pool_t *); /* gives all blocks back */

typedef struct smos__insert_result {
    uint32_t stored;      /* new bytes now buffered */
    uint32_t duplicate;   /* bytes that were buffered already with the same value */
    uint32_t conflicting; /* bytes that were buffered with another value */
    uint64_t conflict_offset; /* first of them */
    uint8_t full;         /* the pool or a limit ended the insert early: the rest was not stored */
    uint8_t kept_old;     /* some conflicting bytes kept the older value */
    uint8_t took_new;     /* some took the newer */
} smos__insert_result_t;

/* Buffers data at [offset, offset + length); offset >= next is the caller's duty (it trims what is delivered). Never stores more than
 * max_bytes in all or max_segments blocks. */
void smos__assembler_insert(smos__assembler_t *, smos__pool_t *, uint64_t offset, const uint8_t *data, uint32_t length, int policy,
                            uint32_t max_bytes, uint32_t max_segments, smos__insert_result_t *result);

/* The conflict check alone, for data that overlaps what is buffered but will be delivered from the packet: compares [offset, +length)
 * with what is buffered; returns the conflicting bytes and the first one's offset. */
uint32_t smos__assembler_compare(const smos__assembler_t *, const smos__pool_t *, uint64_t offset, const uint8_t *data, uint32_t length, uint64_t *first);

/* Policy at the edge: an in-order segment [offset, +length) with offset == next reaches into buffered blocks. Overwrites or keeps by the
 * policy like insert would; the caller asks which bytes of the segment are delivered from the packet: for the longest prefix where
 * the packet's bytes win, returns its length (0: the buffered bytes at `offset` win). */
uint32_t smos__assembler_new_wins(const smos__assembler_t *, const smos__pool_t *, uint64_t offset, uint32_t length, int policy);

/* The same question from any byte of such a segment on, `from` in [offset, offset + length): how many bytes from there have one winner,
 * *packet telling which. Asking again with a shorter segment instead would move its bounds, which the rules look at. */
uint32_t smos__assembler_winner(const smos__assembler_t *, const smos__pool_t *, uint64_t offset, uint32_t length, uint64_t from, int policy, bool *packet);

/* The first buffered bytes: *offset, *data, length; 0 if empty. `data` stays until the next change. */
uint32_t smos__assembler_front(const smos__assembler_t *, const smos__pool_t *, uint64_t *offset, const uint8_t **data);

/* Copies buffered bytes from `offset` on, up to `length` or the first that is absent; returns how many. */
uint32_t smos__assembler_read(const smos__assembler_t *, const smos__pool_t *, uint64_t offset, uint8_t *buffer, uint32_t length);

/* The first buffered byte at or after `offset`; UINT64_MAX if there is none. */
uint64_t smos__assembler_next(const smos__assembler_t *, const smos__pool_t *, uint64_t offset);

/* Forgets everything below `offset` (delivered or superseded), giving blocks back. */
void smos__assembler_trim(smos__assembler_t *, smos__pool_t *, uint64_t offset);

/* After the last buffered byte; 0 if there is none. */
uint64_t smos__assembler_last(const smos__assembler_t *, const smos__pool_t *);

/* Buffered ranges in order, adjacent blocks joined: fills up to max [start, end) pairs, returns their number. */
uint32_t smos__assembler_ranges(const smos__assembler_t *, const smos__pool_t *, uint64_t (*ranges)[2], uint32_t max);

#endif
