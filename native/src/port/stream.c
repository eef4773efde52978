/* What is read rather than mapped: pipes, standard input, compressed files. A buffer slides over the input; within a burst
 * nothing that was handed out is moved. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "port/source.h"
#include "port/unpack.h"

#define ROOM ((size_t)1 << 20)
#define INPUT ((size_t)1 << 17)

typedef struct stream {
    smos__source_t source;
    int fd;
    int polled;  /* give LATER rather than wait */
    int begun;   /* the first bytes told what it is */
    int ended;   /* of the input */
    smos__unpack_t *unpack; /* NULL: plain */
    uint8_t *buffer;
    size_t room;
    size_t kept; /* offset in buffer: from here on nothing may move before the next release */
    uint8_t *input; /* bytes before unpacking; for a plain stream only those that were read to look at */
    size_t input_at, input_end;
} stream_t;

/* Reads at least one byte. SMOS__SOURCE_OK, LATER, END, FAILED; *got bytes. */
static int read_some(stream_t *s, uint8_t *to, size_t room, size_t *got)
{
    *got = 0;
    if (s->ended) return SMOS__SOURCE_END;
    for (;;) {
        struct pollfd ready = { .fd = s->fd, .events = POLLIN };
        if (s->polled && poll(&ready, 1, 0) <= 0) return SMOS__SOURCE_LATER;
        ssize_t n = read(s->fd, to, room);
        if (n > 0) {
            *got = (size_t)n;
            return SMOS__SOURCE_OK;
        }
        if (n == 0) {
            s->ended = 1;
            return SMOS__SOURCE_END;
        }
        if (s->polled && (errno == EAGAIN || errno == EINTR)) return SMOS__SOURCE_LATER;
        if (errno != EAGAIN) break; /* a signal while waiting for the head ends the wait: Ctrl-C must work */
        poll(&ready, 1, -1);
    }
    snprintf(s->source.problem, sizeof s->source.problem, "cannot be read: %s", strerror(errno));
    return SMOS__SOURCE_FAILED;
}

static int refill_input(stream_t *s)
{
    size_t got;
    if (s->input_at == s->input_end) s->input_at = s->input_end = 0;
    int result = read_some(s, s->input + s->input_end, INPUT - s->input_end, &got);
    s->input_end += got;
    return result;
}

/* Looks at the first bytes. SMOS__SOURCE_OK or as read_some; fewer than 4 bytes in all are plain. */
static int begin(stream_t *s)
{
    while (s->input_end < 4 && !s->ended) {
        int result = refill_input(s);
        if (result != SMOS__SOURCE_OK && result != SMOS__SOURCE_END) return result;
    }
    if (smos__unpack_recognizes(s->input, s->input_end)) {
        s->unpack = smos__unpack_open(s->input, s->input_end);
        if (s->unpack == NULL) {
            snprintf(s->source.problem, sizeof s->source.problem, "cannot be read: out of memory");
            return SMOS__SOURCE_FAILED;
        }
    }
    s->begun = 1;
    return SMOS__SOURCE_OK;
}

static int unpack_some(stream_t *s, uint8_t *to, size_t room, size_t *got)
{
    char *problem = s->source.problem;
    for (;;) {
        long made = smos__unpack(s->unpack, s->input, &s->input_at, s->input_end, to, room, problem, sizeof s->source.problem);
        if (made < 0) return SMOS__SOURCE_FAILED;
        if (made > 0) {
            *got = (size_t)made;
            return SMOS__SOURCE_OK;
        }
        int result = refill_input(s);
        if (result == SMOS__SOURCE_END && !smos__unpack_complete(s->unpack)) {
            snprintf(problem, sizeof s->source.problem, "is cut short in its %s data", smos__unpack_name(s->unpack));
            return SMOS__SOURCE_FAILED;
        }
        if (result != SMOS__SOURCE_OK) return result;
    }
}

/* At least one more byte of the capture into to[0..room). */
static int produce(stream_t *s, uint8_t *to, size_t room, size_t *got)
{
    *got = 0;
    if (!s->begun) {
        int result = begin(s);
        if (result != SMOS__SOURCE_OK) return result;
    }
    if (s->unpack != NULL) return unpack_some(s, to, room, got);
    size_t seen = s->input_end - s->input_at;
    if (seen == 0) return read_some(s, to, room, got);
    *got = seen < room ? seen : room;
    memcpy(to, s->input + s->input_at, *got);
    s->input_at += *got;
    return SMOS__SOURCE_OK;
}

static void move_to_front(stream_t *s)
{
    size_t at = (size_t)(s->source.at - s->buffer), bytes = (size_t)(s->source.end - s->source.at);
    memmove(s->buffer, s->buffer + at, bytes);
    s->source.at = s->buffer;
    s->source.end = s->buffer + bytes;
    s->kept = 0;
}

static int make_room(stream_t *s, size_t bytes)
{
    size_t at = (size_t)(s->source.at - s->buffer);
    if (s->room - at >= bytes) return SMOS__SOURCE_OK;
    if (at != s->kept) return SMOS__SOURCE_LATER;
    move_to_front(s);
    if (bytes <= s->room) return SMOS__SOURCE_OK;
    size_t have = (size_t)(s->source.end - s->source.at);
    uint8_t *larger = realloc(s->buffer, bytes);
    if (larger == NULL) {
        snprintf(s->source.problem, sizeof s->source.problem, "cannot be read: out of memory");
        return SMOS__SOURCE_FAILED;
    }
    s->buffer = larger;
    s->room = bytes;
    s->source.at = larger;
    s->source.end = larger + have;
    return SMOS__SOURCE_OK;
}

static int stream_fill(smos__source_t *source, size_t bytes)
{
    stream_t *s = (stream_t *)source;
    int result = make_room(s, bytes);
    while (result == SMOS__SOURCE_OK && (size_t)(source->end - source->at) < bytes) {
        size_t used = (size_t)(source->end - s->buffer), got;
        result = produce(s, s->buffer + used, s->room - used, &got);
        source->end += got;
    }
    return result;
}

static void stream_release(smos__source_t *source)
{
    stream_t *s = (stream_t *)source;
    size_t at = (size_t)(source->at - s->buffer);
    s->kept = at;
    if (source->at == source->end || at > s->room / 2) move_to_front(s);
}

static void stream_close(smos__source_t *source)
{
    stream_t *s = (stream_t *)source;
    smos__unpack_close(s->unpack);
    close(s->fd);
    free(s->buffer);
    free(s->input);
    free(s);
}

smos__source_t *smos__source_stream(int fd)
{
    stream_t *s = calloc(1, sizeof *s);
    uint8_t *buffer = malloc(ROOM), *input = malloc(INPUT);
    if (s == NULL || buffer == NULL || input == NULL) {
        free(s);
        free(buffer);
        free(input);
        close(fd);
        return NULL;
    }
    s->fd = fd;
    s->buffer = buffer;
    s->room = ROOM;
    s->input = input;
    s->source = (smos__source_t){ .at = buffer, .end = buffer, .fill = stream_fill, .release = stream_release, .close = stream_close, .fd = fd };
    return &s->source;
}

void smos__source_stream_poll(smos__source_t *source)
{
    if (source->close == stream_close) ((stream_t *)source)->polled = 1;
}
