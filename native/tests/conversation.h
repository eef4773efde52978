/* conversation.h: TCP segments written as one-line calls, and a shard that follows them with one module of the test's. */
#ifndef SMOS_TEST_CONVERSATION_H
#define SMOS_TEST_CONVERSATION_H

#include "check.h"
#include "port/port.h"
#include "shard/shard.h"

#define TALK_MAX 4096
#define MS INT64_C(1000000)

typedef struct talk {
    smos__port_t port;
    smos__frame_t frames[TALK_MAX];
    int count, at, burst;
    int64_t now_ns;
} talk_t;

static inline int talk_receive(smos__port_t *port, smos__frame_t *burst, int max)
{
    talk_t *t = (talk_t *)port;
    int n = 0;
    while (n < max && n < t->burst && t->at < t->count) burst[n++] = t->frames[t->at++];
    return n ? n : SMOS__PORT_END;
}

static inline void talk_close(smos__port_t *port)
{
    talk_t *t = (talk_t *)port;
    for (int i = 0; i < t->count; i++) free((void *)(uintptr_t)t->frames[i].data);
}

static inline talk_t *talk(void)
{
    talk_t *t = calloc(1, sizeof *t);
    CHECK(t != NULL);
    t->burst = SMOS__BURST;
    t->now_ns = INT64_C(1700000000) * 1000 * MS;
    t->port = (smos__port_t){.receive = talk_receive, .close = talk_close, .fd = -1, .ends = 1};
    return t;
}

static inline void put_be(uint8_t *at, uint32_t value, int bytes)
{
    for (int i = bytes; i-- > 0; value >>= 8) at[i] = (uint8_t)value;
}

/* One TCP segment of connection `number`, a millisecond after the one before: from 0 the client 10.0.0.1:(1000 + number), 1 the server 10.0.0.2:80. */
static inline void segment(talk_t *t, int number, int from, uint8_t flags, uint32_t seq, uint32_t ack, const char *text)
{
    uint32_t length = (uint32_t)strlen(text), size = 14 + 20 + 20 + length;
    CHECK(t->count < TALK_MAX);
    uint8_t *f = calloc(1, size);
    CHECK(f != NULL);
    f[12] = 0x08;
    uint8_t *ip = f + 14, *tcp = ip + 20;
    ip[0] = 0x45;
    put_be(ip + 2, 40 + length, 2);
    ip[8] = 64;
    ip[9] = 6;
    put_be(ip + 12, from ? 0x0a000002 : 0x0a000001, 4);
    put_be(ip + 16, from ? 0x0a000001 : 0x0a000002, 4);
    put_be(tcp, from ? 80 : 1000u + (uint32_t)number, 2);
    put_be(tcp + 2, from ? 1000u + (uint32_t)number : 80, 2);
    put_be(tcp + 4, seq, 4);
    put_be(tcp + 8, ack, 4);
    tcp[12] = 0x50;
    tcp[13] = flags;
    put_be(tcp + 14, 0x2000, 2);
    memcpy(tcp + 20, text, length);
    t->now_ns += MS;
    t->frames[t->count] = (smos__frame_t){.data = f, .caplen = size, .len = size, .time_ns = t->now_ns, .number = (uint64_t)t->count + 1, .linktype = 1};
    t->count++;
}

/* Bytes as they are, a millisecond after the frame before. */
static inline void whole_frame(talk_t *t, const uint8_t *bytes, uint32_t size)
{
    uint8_t *f = malloc(size);
    CHECK(f != NULL && t->count < TALK_MAX);
    memcpy(f, bytes, size);
    t->now_ns += MS;
    t->frames[t->count] = (smos__frame_t){.data = f, .caplen = size, .len = size, .time_ns = t->now_ns, .number = (uint64_t)t->count + 1, .linktype = 1};
    t->count++;
}

/* One UDP datagram of flow `number`: from 0 the client 10.0.0.1:(2000 + number), 1 the server 10.0.0.2:53. */
static inline void datagram(talk_t *t, int number, int from, uint32_t length) /* at most 64 */
{
    uint8_t f[14 + 28 + 64] = {[12] = 0x08};
    uint8_t *ip = f + 14, *udp = ip + 20;
    ip[0] = 0x45, ip[8] = 64, ip[9] = 17;
    put_be(ip + 2, 28 + length, 2);
    put_be(ip + 12, from ? 0x0a000002 : 0x0a000001, 4);
    put_be(ip + 16, from ? 0x0a000001 : 0x0a000002, 4);
    put_be(udp, from ? 53 : 2000u + (uint32_t)number, 2);
    put_be(udp + 2, from ? 2000u + (uint32_t)number : 53, 2);
    put_be(udp + 4, 8 + length, 2);
    whole_frame(t, f, 42 + length);
}

/* Client ISN 100, server ISN 500. */
static inline void handshake(talk_t *t, int number)
{
    segment(t, number, 0, SMOS__SYN, 100, 0, "");
    segment(t, number, 1, SMOS__SYN | SMOS__ACK, 500, 101, "");
    segment(t, number, 0, SMOS__ACK, 101, 501, "");
}

/* Sent so far: `client` and `server` bytes after the SYNs. */
static inline void goodbye(talk_t *t, int number, uint32_t client, uint32_t server)
{
    segment(t, number, 0, SMOS__FIN | SMOS__ACK, 101 + client, 501 + server, "");
    segment(t, number, 1, SMOS__FIN | SMOS__ACK, 501 + server, 102 + client, "");
    segment(t, number, 0, SMOS__ACK, 102 + client, 502 + server, "");
}

static inline smos_shard_t *shard_of_talk(talk_t *t)
{
    char error[SMOS_ERROR_SIZE];
    smos_config_t config;
    smos_config_default(&config);
    CHECK_EQ(smos_config_memory(&config, 64 << 20), 0);
    config.checksums = 1;
    smos_shard_t *s = smos_shard_create(&config, error);
    CHECK(s != NULL);
    s->port = &t->port;
    return s;
}

static inline smos_box_t *module_of(smos_shard_t *s, const smos_module_t *m)
{
    char error[SMOS_ERROR_SIZE];
    smos_box_t *box = smos_box_create(s, m, "1", s, NULL, error);
    if (!box) fprintf(stderr, "%s\n", error);
    CHECK(box != NULL);
    return box;
}

static inline void commit(smos_shard_t *s, smos_box_t *box)
{
    smos_box_t *old = NULL;
    CHECK_EQ(smos_shard_commit(s, box, &old), 0);
    smos_box_free(old);
}

/* To the end of the conversation, and its end; frees both. */
static inline void run_to_end(smos_shard_t *s, talk_t *t)
{
    uint32_t bits;
    while (!((bits = smos_shard_run(s, 1000000000)) & SMOS_RUN_END)) CHECK(!(bits & SMOS_RUN_FAILED));
    while (!(smos_shard_finish(s, SMOS_END_CAPTURE, 0) & SMOS_RUN_END)) continue;
    smos_shard_destroy(s);
    free(t);
}

#endif
