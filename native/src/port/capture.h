/* capture.h: one capture file as a port: a source of bytes and the format that is read from it. Internal to src/port. */
#ifndef SMOS__CAPTURE_H
#define SMOS__CAPTURE_H

#include "port/port.h"
#include "port/source.h"

/* libpcap's MAXIMUM_SNAPLEN: a record that claims to hold more is damaged. */
#define SMOS__MAX_CAPLEN 262144u

typedef struct smos__interface {
    uint64_t ticks;   /* of the clock per second */
    int64_t offset_s; /* added to every time */
    uint32_t snaplen; /* 0: no limit */
    uint16_t linktype;
    uint8_t binary;   /* ticks is a power of two */
} smos__interface_t;

typedef struct smos__capture {
    smos__port_t port; /* first: a capture is a port */
    smos__source_t *source;
    char name[120]; /* for messages */
    uint64_t packets;
    int64_t last_ns;
    int failed;
    int swapped; /* the file's byte order is not ours */
    /* pcap */
    uint32_t record_header; /* bytes */
    uint32_t snaplen;
    uint32_t tick_ns;
    uint16_t linktype;
    uint8_t lengths; /* 0 as they should be; 1 exchanged; 2 perhaps exchanged (files older than 2.4) */
    /* pcapng */
    smos__interface_t *interfaces;
    uint32_t interface_count, interface_room;
} smos__capture_t;

/* Called with the first 4 bytes readable. 1 opened, 0 not this format, -1 failed with port.error set. */
int smos__pcap_open(smos__capture_t *);
int smos__pcapng_open(smos__capture_t *);
void smos__pcapng_close(smos__capture_t *);

/* One file, "-" for standard input, read by `reader` (smos__reader_t). NULL with one line in error. */
smos__port_t *smos__capture_open(const char *path, int reader, char *error);
/* The same through libpcap alone; regular, not compressed files only. The reference for the tests. */
smos__port_t *smos__libpcap_open(const char *path, char *error);

/* k ports as one in time order; owns them, also on failure. */
smos__port_t *smos__merge_open(smos__port_t **ports, int count, char *error);
/* Paces and loops the captures. */
smos__port_t *smos__replay_open(const char *const *paths, int count, const smos__replay_t *, char *error);
/* Once through `paths`. */
smos__port_t *smos__captures_once(const char *const *paths, int count, int reader, char *error);

/* The name as messages show it: printable, at most `size` - 1 bytes, its end rather than its start; "-" is standard input. */
void smos__capture_name(const char *path, char *name, size_t size);

/* Sets "NAME problem" as the port's error; returns SMOS__PORT_FAILED. */
__attribute__((format(printf, 2, 3))) int smos__capture_fail(smos__capture_t *, const char *problem, ...);
/* What a receive returns that got `n` frames and then `got` (a SMOS__SOURCE_*) from its source. */
int smos__capture_settle(smos__capture_t *, int n, int got);

/* Refuses a link type that decode does not know: 0, or -1 with the error set. */
int smos__capture_check_linktype(smos__capture_t *, uint32_t linktype);
/* The LINKTYPE_ value of the field in a file: without the bits about the frame check sequence, the raw IP of other systems as ours. */
uint16_t smos__capture_linktype(uint32_t field);

static inline uint32_t smos__u32_as(const uint8_t *p, bool swapped)
{
    uint32_t v;
    __builtin_memcpy(&v, p, sizeof v);
    return swapped ? __builtin_bswap32(v) : v;
}

static inline uint32_t smos__u32(const smos__capture_t *c, const uint8_t *p) { return smos__u32_as(p, c->swapped); }

static inline uint16_t smos__u16(const smos__capture_t *c, const uint8_t *p)
{
    uint16_t v;
    __builtin_memcpy(&v, p, sizeof v);
    return c->swapped ? __builtin_bswap16(v) : v;
}

/* Hands a frame out and keeps the ledger. */
static inline void smos__capture_deliver(smos__capture_t *c, smos__frame_t *frame, const uint8_t *data, uint32_t caplen,
                                         uint32_t len, int64_t time_ns, uint16_t linktype)
{
    if (len < caplen) len = caplen;
    *frame = (smos__frame_t){ .data = data, .caplen = caplen, .len = len, .time_ns = time_ns, .number = ++c->packets, .linktype = linktype };
    c->port.stats.bytes += len;
    c->port.stats.time_backward += time_ns < c->last_ns;
    c->last_ns = time_ns;
}

/* After a burst of `bytes`: the next one will be about as long. Not so far ahead that the cache forgets it again. */
static inline void smos__capture_look_ahead(smos__capture_t *c, size_t bytes)
{
    smos__source_t *s = c->source;
    if (s->ahead == NULL) return;
    bytes = bytes < SMOS__FAR_AHEAD ? bytes + SMOS__PREFETCH : SMOS__FAR_AHEAD;
    c->port.ahead = &s->ahead;
    c->port.ahead_end = (size_t)(s->end - s->at) > bytes ? s->at + bytes : s->end;
}

#endif
