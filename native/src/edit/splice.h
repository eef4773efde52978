/* splice.h: one direction of a TCP stream whose bytes a middlebox changes on their way. Pure.
 *
 * The sender numbers the bytes that it sent (*original* numbers), the receiver those that it gets (*edited* numbers). An edit takes `removed`
 * original bytes out at `at` and puts `text` there. Until the receiver has acknowledged its text an edit is kept, so that
 * whatever segments the bytes come in again, in parts or overlapping, the receiver gets the same text. Afterwards only the sum of
 * what was added and taken is left.
 */
#ifndef SMOS__SPLICE_H
#define SMOS__SPLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SMOS__SPLICE_EDITS 65536     /* not acknowledged, per direction */
#define SMOS__SPLICE_TEXT (4u << 20) /* bytes of their texts together */

typedef struct smos__splice_edit {
    uint32_t at;      /* original number of the first byte removed, or of the byte before which the text stands */
    uint32_t removed;
    uint32_t length;  /* of the text */
    uint32_t shift;   /* edited less original numbers, before it */
    bool behind;      /* nothing removed: the text goes with the byte before `at`, not with the one at it */
    uint8_t *text;    /* owned, malloc */
} smos__splice_edit_t;

typedef struct smos__splice {
    uint32_t shift;   /* edited less original numbers, after the last edit */
    uint32_t count;
    uint32_t text;    /* bytes */
    uint32_t first, room; /* of the array: the first that is not acknowledged, and how many there can be */
    smos__splice_edit_t *array; /* owned; NULL: none */
} smos__splice_t; /* zeroed: empty. Edits are in order of their places and do not touch each other's bytes */

void smos__splice_clear(smos__splice_t *); /* frees the texts */

/* The receiver's view of a segment [seq, seq + length) of the sender (fin: with a FIN behind it): its bytes to `out`, its first number to *edited.
 * Returns the number of bytes; -1 if they are more than `room`. */
int64_t smos__splice_segment(const smos__splice_t *, uint32_t seq, const uint8_t *data, uint32_t length, bool fin, uint8_t *out, uint32_t room, uint32_t *edited);

/* The edited number of whatever the sender would send next at `seq`. */
uint32_t smos__splice_next(const smos__splice_t *, uint32_t seq);

/* An acknowledgement of the receiver in the sender's numbers: of all bytes whose edited form it has. */
uint32_t smos__splice_ack(const smos__splice_t *, uint32_t ack);

/* Replaces `removed` bytes from the edited number `at` on by text. `behind`: it is the end of the sender's segment. 0, -ENOSPC, -ENOMEM (nothing
 * changed). */
int smos__splice_add(smos__splice_t *, uint32_t at, uint32_t removed, const uint8_t *text, uint32_t length, bool behind);

/* The receiver has everything below `ack` (edited): edits that lie below are forgotten. */
void smos__splice_acked(smos__splice_t *, uint32_t ack);

/* What it holds in memory. */
static inline size_t smos__splice_bytes(const smos__splice_t *s) { return s->text + s->room * sizeof *s->array; }

static inline bool smos__splice_empty(const smos__splice_t *s) { return !s->count && !s->shift; }

#endif
