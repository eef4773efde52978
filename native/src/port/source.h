/* source.h: where a capture's bytes come from: a mapped file, or a stream that is read and perhaps unpacked.
 *
 * Bytes from `at` up to `end` can be read now. What lies between the last release and `at` stays where it is (frames of the
 * current burst point into it) until the next release.
 */
#ifndef SMOS__SOURCE_H
#define SMOS__SOURCE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    SMOS__SOURCE_OK = 1,
    SMOS__SOURCE_LATER = 0,  /* not now: release first, or (when nothing was taken since) wait for the descriptor */
    SMOS__SOURCE_END = -1,   /* the input ends before that many bytes; at..end is what there is */
    SMOS__SOURCE_FAILED = -2 /* see problem */
};

#define SMOS__SHORTER "became shorter while it was read"

typedef struct smos__source smos__source_t;

struct smos__source {
    const uint8_t *at;
    const uint8_t *end;
    const uint8_t *ahead; /* prefetched up to here; NULL where the bytes are in the cache anyway */
    int (*fill)(smos__source_t *, size_t bytes); /* bytes > end - at */
    void (*release)(smos__source_t *);
    void (*close)(smos__source_t *); /* frees the source */
    int fd;                          /* to poll after LATER; -1 none */
    volatile int shrunk;             /* a mapped file became shorter: what was read last may be zeros that nobody wrote */
    char problem[128];               /* what follows the file's name in a message: "is cut short: ..." */
};

/* Makes `bytes` contiguous bytes readable at `at`. */
static inline int smos__source_need(smos__source_t *s, size_t bytes)
{
    if (__builtin_expect((size_t)(s->end - s->at) >= bytes, 1)) return SMOS__SOURCE_OK;
    return s->fill(s, bytes);
}

#define SMOS__PREFETCH 4096
#define SMOS__FAR_AHEAD 65536
#define SMOS__LINE 64

/* A walk that hops from record to record waits for memory at each; having every line fetched 4 KiB ahead hides it. The walk is `at`, lines before
 * `ahead` were fetched; returns up to where they are now. */
static inline const uint8_t *smos__source_fetch(const smos__source_t *s, const uint8_t *at, const uint8_t *ahead)
{
    if (ahead == NULL || __builtin_expect(ahead - at >= SMOS__PREFETCH, 1)) return ahead;
    const uint8_t *limit = s->end - at > SMOS__PREFETCH ? at + SMOS__PREFETCH : s->end;
    for (; ahead < limit; ahead += SMOS__LINE) __builtin_prefetch(ahead);
    return ahead;
}

/* Steps over bytes that need() made readable. */
static inline void smos__source_take(smos__source_t *s, size_t bytes)
{
    s->at += bytes;
    s->ahead = smos__source_fetch(s, s->at, s->ahead);
}

/* A regular file of `bytes` > 0 bytes, mapped. The descriptor stays the caller's. NULL with errno where it cannot be mapped. */
smos__source_t *smos__source_map(int fd, size_t bytes);

/* Whatever can be read from fd, unpacked when it is gzip or zstd. The source owns fd from now on, also on failure. NULL: out of memory. */
smos__source_t *smos__source_stream(int fd);
/* From now on a stream gives LATER where reading would block (the head of a capture is waited for, its packets are not). */
void smos__source_stream_poll(smos__source_t *);

#endif
