/* captures.h: the tests' own writer of capture files, byte by byte, and a port's whole content as one array. */
#ifndef SMOS_TEST_CAPTURES_H
#define SMOS_TEST_CAPTURES_H

#include <stdint.h>
#include <unistd.h>

#include "check.h"
#include "port/port.h"

typedef struct bytes {
    uint8_t *data;
    size_t length, room;
    int big; /* write big-endian */
} bytes_t;

static inline void put(bytes_t *b, const void *data, size_t length)
{
    if (b->length + length > b->room) {
        b->room = (b->length + length) * 2;
        b->data = realloc(b->data, b->room);
        CHECK(b->data != NULL);
    }
    if (length > 0) memcpy(b->data + b->length, data, length);
    b->length += length;
}

static inline void put_number(bytes_t *b, uint64_t value, int width)
{
    for (int i = 0; i < width; i++) {
        uint8_t byte = (uint8_t)(value >> 8 * (b->big ? width - 1 - i : i));
        put(b, &byte, 1);
    }
}

static inline void put16(bytes_t *b, uint16_t v) { put_number(b, v, 2); }
static inline void put32(bytes_t *b, uint32_t v) { put_number(b, v, 4); }

static inline void put_fill(bytes_t *b, uint8_t value, size_t length)
{
    for (size_t i = 0; i < length; i++) put(b, &value, 1);
}

static inline void pcap_header(bytes_t *b, uint32_t magic, uint32_t snaplen, uint32_t linktype)
{
    put32(b, magic);
    put16(b, 2);
    put16(b, 4);
    put32(b, 0);
    put32(b, 0);
    put32(b, snaplen);
    put32(b, linktype);
}

static inline void pcap_record(bytes_t *b, uint32_t seconds, uint32_t fraction, uint32_t caplen, uint32_t len, uint8_t fill)
{
    put32(b, seconds);
    put32(b, fraction);
    put32(b, caplen);
    put32(b, len);
    put_fill(b, fill, caplen);
}

/* One pcapng block around a body; pads it. */
static inline void ng_block(bytes_t *b, uint32_t type, const bytes_t *body)
{
    uint32_t padded = ((uint32_t)body->length + 3) & ~3u;
    put32(b, type);
    put32(b, padded + 12);
    put(b, body->data, body->length);
    put_fill(b, 0, padded - body->length);
    put32(b, padded + 12);
}

static inline void ng_section(bytes_t *b)
{
    bytes_t body = { .big = b->big };
    put32(&body, 0x1a2b3c4d);
    put16(&body, 1);
    put16(&body, 0);
    put_number(&body, UINT64_MAX, 8);
    ng_block(b, 0x0a0d0d0a, &body);
    free(body.data);
}

/* resolution < 0: no option; offset 0: no option */
static inline void ng_interface(bytes_t *b, uint16_t linktype, uint32_t snaplen, int resolution, int64_t offset)
{
    bytes_t body = { .big = b->big };
    put16(&body, linktype);
    put16(&body, 0);
    put32(&body, snaplen);
    if (resolution >= 0) {
        put16(&body, 9);
        put16(&body, 1);
        put_number(&body, (uint64_t)resolution, 1);
        put_fill(&body, 0, 3);
    }
    if (offset != 0) {
        put16(&body, 14);
        put16(&body, 8);
        put_number(&body, (uint64_t)offset, 8);
    }
    if (resolution >= 0 || offset != 0) put32(&body, 0);
    ng_block(b, 1, &body);
    free(body.data);
}

static inline void ng_packet(bytes_t *b, uint32_t interface, uint64_t ticks, uint32_t caplen, uint32_t len, uint8_t fill)
{
    bytes_t body = { .big = b->big };
    put32(&body, interface);
    put32(&body, (uint32_t)(ticks >> 32));
    put32(&body, (uint32_t)ticks);
    put32(&body, caplen);
    put32(&body, len);
    put_fill(&body, fill, caplen);
    ng_block(b, 6, &body);
    free(body.data);
}

static char saved[8][64];
static pid_t saver;

static inline void remove_saved(void)
{
    for (int i = 0; i < 8 && getpid() == saver; i++)
        if (saved[i][0] != '\0') unlink(saved[i]);
}

/* Writes a file of that content, frees the content; the path is overwritten by the 8th call after this one. */
static inline const char *save(bytes_t *b)
{
    static int next;
    if (!saver) {
        saver = getpid();
        atexit(remove_saved);
    }
    char *path = saved[next++ % 8];
    if (path[0] != '\0') unlink(path);
    const char *folder = getenv("TMPDIR");
    snprintf(path, sizeof saved[0], "%s/smos-test-XXXXXX", folder != NULL && strlen(folder) < 40 ? folder : "/tmp");
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    CHECK(b->length == 0 || write(fd, b->data, b->length) == (ssize_t)b->length);
    close(fd);
    const char *seeds = getenv("SMOS_SEEDS"); /* keep a copy for the fuzzer */
    if (seeds != NULL && b->length > 0 && b->length < 65536) {
        static int number;
        char copy[512];
        snprintf(copy, sizeof copy, "%s/%d-%d", seeds, (int)getpid(), number++);
        FILE *file = fopen(copy, "wb");
        CHECK(file != NULL && fwrite(b->data, 1, b->length, file) == b->length && fclose(file) == 0);
    }
    free(b->data);
    *b = (bytes_t){ .big = b->big };
    return path;
}

/* All a port delivers, copied. */
typedef struct content {
    smos__frame_t *frames;
    uint8_t **data;
    int count, result; /* SMOS__PORT_END or SMOS__PORT_FAILED */
    char error[SMOS__PORT_ERROR];
    smos__port_stats_t stats;
} content_t;

static inline content_t drain_bursts(smos__port_t *port, int burst_size)
{
    content_t all = { 0 };
    smos__frame_t burst[SMOS__BURST];
    int got, room = 0, idle = 0;
    while ((got = port->receive(port, burst, burst_size)) >= 0) {
        CHECK(got <= burst_size);
        if (got == 0) {
            CHECK(++idle < 20000);
            usleep(500);
        }
        for (int i = 0; i < got; i++) {
            if (all.count == room) {
                room = room ? room * 2 : 256;
                all.frames = realloc(all.frames, (size_t)room * sizeof *all.frames);
                all.data = realloc(all.data, (size_t)room * sizeof *all.data);
            }
            all.frames[all.count] = burst[i];
            all.data[all.count] = malloc(burst[i].caplen + 1u);
            memcpy(all.data[all.count], burst[i].data, burst[i].caplen);
            all.frames[all.count].data = all.data[all.count];
            CHECK_EQ(burst[i].number, all.count + 1);
            CHECK(burst[i].len >= burst[i].caplen);
            all.count++;
        }
    }
    all.result = got;
    memcpy(all.error, port->error, sizeof all.error);
    CHECK(strchr(all.error, '\n') == NULL);
    CHECK_EQ(port->receive(port, burst, burst_size), got); /* the end stays the end */
    all.stats = port->stats;
    CHECK_EQ(all.stats.packets, all.count);
    port->close(port);
    return all;
}

static inline content_t drain(smos__port_t *port) { return drain_bursts(port, SMOS__BURST); }

static inline void discard(content_t *c)
{
    for (int i = 0; i < c->count; i++) free(c->data[i]);
    free(c->data);
    free(c->frames);
    *c = (content_t){ 0 };
}

static inline smos__port_t *open_with(const char *path, int reader, char *error)
{
    smos__replay_t how = { .reader = reader };
    return smos__port_open_captures(&path, 1, &how, error);
}

static inline content_t read_all(const char *path, int reader)
{
    char error[SMOS__PORT_ERROR] = "";
    smos__port_t *port = open_with(path, reader, error);
    if (port == NULL) fprintf(stderr, "%s\n", error);
    CHECK(port != NULL);
    return drain(port);
}

#endif
