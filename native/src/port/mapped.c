/* A mapped file as a source. Memory is populated a window at a time, what was read long ago is given back, and a file that was cut short behind our back is found by an error, between windows by asking, within one by shrink.h. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "port/shrink.h"
#include "port/source.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define WINDOW ((size_t)2 << 20)
#define AROUND 65536 /* bytes that Linux maps at a fault where they are in the page cache (fault_around_bytes) */

typedef struct mapped {
    smos__source_t source;
    uint8_t *map;
    size_t bytes;
    size_t given_back; /* bytes at the map's start, multiple of WINDOW */
    int watch;
} mapped_t;

static int shorter(smos__source_t *source)
{
    snprintf(source->problem, sizeof source->problem, SMOS__SHORTER);
    return SMOS__SOURCE_FAILED;
}

/* Maps what lies in the page cache. A look at each AROUND costs three quarters of what MADV_POPULATE_READ does, which walks all pages again behind its faults;
 * but only that can tell where nobody watches whether the file is still as long. */
static bool populate(mapped_t *m, size_t from, size_t until)
{
    if (m->watch < 0) return madvise(m->map + from, until - from, MADV_POPULATE_READ) == 0 || errno != EFAULT;
    for (size_t at = from; at < until; at += AROUND) (void)*(const volatile uint8_t *)(m->map + at);
    return !m->source.shrunk;
}


/* Has the next window come from the disk meanwhile. Where its end is in the cache already, asking would walk all its pages for nothing; and whoever is not
 * told by mincore(), which knows only the file's owner, has what Linux reads ahead by itself. */
static void read_ahead(const mapped_t *m, size_t from, size_t bytes)
{
    unsigned char cached;
    if (mincore(m->map + (from + bytes - 1) / AROUND * AROUND, 1, &cached) == 0 && cached & 1) return;
    madvise(m->map + from, bytes, MADV_WILLNEED);
}


static int mapped_fill(smos__source_t *source, size_t bytes)
{
    mapped_t *m = (mapped_t *)source;
    size_t at = (size_t)(source->at - m->map);
    size_t known = (size_t)(source->end - m->map);
    if (source->shrunk) return shorter(source);
    if (known == m->bytes) return SMOS__SOURCE_END;
    size_t until = m->bytes;
    if (bytes < m->bytes - at) {
        until = (at + bytes + WINDOW) / WINDOW * WINDOW;
        if (until > m->bytes) until = m->bytes;
    }
    if (!populate(m, known, until)) return shorter(source);
    if (until < m->bytes) read_ahead(m, until, m->bytes - until < WINDOW ? m->bytes - until : WINDOW);
    source->end = m->map + until;
    return m->bytes - at >= bytes ? SMOS__SOURCE_OK : SMOS__SOURCE_END;
}

static void mapped_release(smos__source_t *source)
{
    mapped_t *m = (mapped_t *)source;
    size_t at = (size_t)(source->at - m->map);
    if (source->shrunk) source->end = source->at; /* what follows are zeros: fill() says why there is no more */
    if (at - m->given_back < 2 * WINDOW) return;
    size_t keep = at / WINDOW * WINDOW;
    madvise(m->map + m->given_back, keep - m->given_back, MADV_DONTNEED);
    m->given_back = keep;
}

static void mapped_close(smos__source_t *source)
{
    mapped_t *m = (mapped_t *)source;
    smos__shrink_unwatch(m->watch);
    munmap(m->map, m->bytes);
    free(m);
}

smos__source_t *smos__source_map(int fd, size_t bytes)
{
    mapped_t *m = calloc(1, sizeof *m);
    if (m == NULL) return NULL;
    m->map = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (m->map == MAP_FAILED) {
        free(m);
        return NULL;
    }
    madvise(m->map, bytes, MADV_SEQUENTIAL);
    m->bytes = bytes;
    m->source = (smos__source_t){ .at = m->map, .end = m->map, .ahead = m->map, .fill = mapped_fill,
                                  .release = mapped_release, .close = mapped_close, .fd = -1 };
    m->watch = smos__shrink_watch(m->map, bytes, &m->source.shrunk);
    return &m->source;
}
