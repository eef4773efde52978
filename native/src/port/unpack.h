/* unpack.h: gzip (RFC 1952) and zstd (RFC 8878), several members or frames one after the other as one. */
#ifndef SMOS__UNPACK_H
#define SMOS__UNPACK_H

#include <stddef.h>
#include <stdint.h>

typedef struct smos__unpack smos__unpack_t;

/* 1 if bytes that begin so are gzip or zstd. */
int smos__unpack_recognizes(const uint8_t *head, size_t bytes);
/* NULL: out of memory. */
smos__unpack_t *smos__unpack_open(const uint8_t *head, size_t bytes);
void smos__unpack_close(smos__unpack_t *);

/* Unpacks from in[*in_at..in_end) to out[0..room) and moves *in_at on. Returns the bytes made; 0 when it wants more input; -1 with
 * `problem` set when the data are damaged. */
long smos__unpack(smos__unpack_t *, const uint8_t *in, size_t *in_at, size_t in_end, uint8_t *out, size_t room, char *problem, size_t problem_size);
/* At the end of the input: 1 if it ends between members, 0 if within one. */
int smos__unpack_complete(const smos__unpack_t *);
/* "gzip" or "zstd" */
const char *smos__unpack_name(const smos__unpack_t *);

#endif
