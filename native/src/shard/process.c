/* A burst's way through the worker: decode, find, process, settle, each stage some packets behind the one before. */
#include "shard/shard.h"
#include "tcp/fast.h"
#include "wire/fast.h"

#define BLOCK 8 /* packets: one block is processed while the next is looked up and the one after that is decoded */
#define LINE 64 /* bytes of the cache */

_Static_assert(SMOS__DECODED % BLOCK == 0 && SMOS__DECODED >= 3 * BLOCK, "a packet's layers are kept until it was processed");


/* result OK, one layer, no anomalies, no fragments: the first four bytes of what was decoded, at once. */
static inline bool one_layer(const smos__decoded_t *d)
{
    uint32_t head;
    memcpy(&head, d, sizeof head);
    return head == 1u << 8;
}
_Static_assert(offsetof(smos__decoded_t, result) == 0 && offsetof(smos__decoded_t, layers) == 1 && offsetof(smos__decoded_t, fragments) == 3 && SMOS__WIRE_OK == 0 &&
               __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "read as one word");


/* The usual frame in the usual set-up, one layer of our own, no filter: the same as smos__process_frame, said shorter. */
static inline bool process_usual(smos_shard_t *s, const smos__frame_t *frame, smos__decoded_t *d, bool mine, uint32_t hash, uint32_t hint)
{
    smos__layer_t *l = &d->layer[0];
    if (!one_layer(d) || !mine || !s->plain || s->events.raw || l->flags & SMOS__ICMP_ERROR) return false;
    smos__advance_time(s, frame->time_ns);
    SMOS__COUNT(s, packets);
    SMOS__ADD(s, bytes, frame->len);
    if (smos__tcp_usual(l) && hint != SMOS__NO_FLOW && smos__process_plain(s, frame, l, hint)) {
        SMOS__COUNT(s, packets_flow);
        return true;
    }
    smos__counter_t how = smos__process_layer(s, frame, l, hash, hint, true);
    s->counters[__builtin_expect(how == SMOS__C_drop_no_memory, 0) ? smos__unfollowed(s, how) : how]++;
    return true;
}


/* What was said about the frame is done. Packets = what the port forwarded + what was dropped, each under its name. */
static void settle(smos_shard_t *s, smos__frame_t *frame)
{
    if (s->verdict == SMOS__PASS && frame->flags & SMOS__FRAME_WHOLE) {
        smos__datagram_send(s, s->port->ends == 2 ? !frame->end : frame->end, smos__as_edited(s, frame));
        s->port->drop(s->port, frame);
        return;
    }
    if (s->verdict == SMOS__PASS && s->edits.active && s->port->send) {
        smos__edit_send(s, s->port->ends == 2 ? !frame->end : frame->end, frame);
        s->port->drop(s->port, frame);
        return;
    }
    if (s->verdict == SMOS__PASS)
        s->port->forward(s->port, frame);
    else
        s->port->drop(s->port, frame);
}


/* Known before a frame is decoded: its only layer is this worker's; or another one's, who reads the same capture: then it is not worth decoding. */
typedef enum { NOBODY_KNOWS, MINE, NOT_MINE } whose_t;

static inline whose_t whose(const smos_shard_t *s, const smos__frame_t *frame)
{
    uint32_t hash;
    if (frame->flags & ~SMOS__FRAME_NO_CHECKSUM || !smos__peek_owner(frame, s->owner_begun, &hash)) return NOBODY_KNOWS;
    if (smos__owner(hash, s->config.workers) == s->config.worker) return MINE;
    return s->handover ? NOBODY_KNOWS : NOT_MINE;
}


/* Stages over a block of the burst. Each works on the block behind the one before it, so that what it needs has come from memory, and few enough packets
 * are under way that their lines stay in the first-level cache. `alone`: this worker has all packets, and hands none over. */

static __attribute__((noinline)) uint32_t decode_any(smos_shard_t *s, int i, smos__decoded_t *d)
{
    smos__frame_t *frame = &s->frames[i];
    if (s->handover && frame->flags & SMOS__FRAME_CARRIES) {
        smos__handover_decode(s, frame, d);
    } else if (!smos__decode_fast(frame, d)) {
        if (s->handover)
            smos__handover_decode(s, frame, d);
        else
            smos__decode(frame, s->defrag, d);
        if (s->datagrams && d->fragments) smos__datagram_whole(s, frame, d);
    }
    if (d->layers != 1) return 0;
    smos_tuple_t *tuple = &d->layer[0].tuple;
    if (s->config.key == 0) tuple->vlan = 0, tuple->tunnel = 0;
    return smos__table_hash(&s->table, tuple);
}


static inline __attribute__((always_inline)) void decode(smos_shard_t *s, int i, smos__decoded_t *d, bool alone)
{
    smos__frame_t *frame = &s->frames[i];
    smos__ends4_t ends;
    uint32_t hash;
    if (__builtin_expect(s->unchecked, 0)) frame->flags |= s->unchecked;
    if (!alone && (s->whose[i] = (uint8_t)whose(s, frame)) == NOT_MINE) return;
    if (__builtin_expect((alone || s->whose[i] == MINE) && smos__decode_plain(frame, d, &ends), 1)) {
        const smos__table_t *t = &s->table;
        hash = smos__hash_all(t, smos__hash_end4(t, ends.source, (uint16_t)ends.ports) + smos__hash_end4(t, ends.destination, (uint16_t)(ends.ports >> 16)), 6 | 4 << 8, 0);
    } else {
        hash = decode_any(s, i, d);
    }
    s->hashes[i] = hash;
    s->buckets[i] = smos__table_bucket(&s->table, hash);
    __builtin_prefetch(s->buckets[i]);
}


/* Where the flow probably is; that of a frame without a layer of its own, or with several, is not asked for. The bucket may have been split since: then it is
 * not there. */
static inline __attribute__((always_inline)) void look_up(smos_shard_t *s, int i, const smos__decoded_t *d, bool alone)
{
    if (!alone && s->whose[i] == NOT_MINE) return;
    uint32_t hint = s->hints[i] = smos__bucket_hint(s->buckets[i], s->hashes[i]);
    if (__builtin_expect(hint == SMOS__NO_FLOW, 0)) return;
    const char *f = (const char *)&s->arena.hot[hint];
    __builtin_prefetch(f, 1);
    __builtin_prefetch(f + LINE, 1);
    __builtin_prefetch(f + 2 * LINE, 1);
    if (s->tcp.detail & SMOS_DETAIL_HISTORY) {
        const char *conn = (const char *)&s->arena.conn[hint];
        __builtin_prefetch(conn, 1);
        __builtin_prefetch(conn + LINE, 1);
    }
    /* What opens or closes a connection, and round-trip times, need the cold record; for other packets, no branch but the same lines again. */
    const char *c = (const char *)&s->arena.cold[hint];
    bool cold = d->layer[0].tcp_flags & s->need_cold;
    const char *rest = (const char *)((uintptr_t)f ^ (((uintptr_t)f ^ (uintptr_t)c) & -(uintptr_t)cold));
    for (size_t at = 0; at < sizeof(smos__flow_cold_t); at += LINE) __builtin_prefetch(rest + at, 1);
    __builtin_prefetch(rest + ((sizeof(smos__flow_cold_t) - 1) & -(size_t)cold), 1); /* records do not begin with a line */
}


static inline __attribute__((always_inline)) void process(smos_shard_t *s, int i, smos__decoded_t *d, bool alone)
{
    smos__frame_t *frame = &s->frames[i];
    s->verdict = SMOS__PASS;
    s->edits.active = false;
    if (!alone && s->whose[i] == NOT_MINE) {
        smos__advance_time(s, frame->time_ns);
        s->verdict = SMOS__DROP; /* here */
    } else if (!process_usual(s, frame, d, alone || s->whose[i] == MINE, s->hashes[i], s->hints[i])) {
        smos__process_frame(s, frame, d, s->hashes[i], s->hints[i]);
        s->nested = false; /* usual ones never are */
    }
    if (__builtin_expect(s->inline_, 0)) settle(s, frame);
}


/* The bytes of the next burst, fetched a few lines at a time as blocks are decoded: memory works while the processor does. */
typedef struct ahead {
    const uint8_t *at;
    uint32_t lines; /* a packet, a multiple of 4 */
} ahead_t;

static ahead_t look_ahead(const smos__port_t *port, size_t packets)
{
    ahead_t a = {0};
    if (!port || !port->ahead || *port->ahead >= port->ahead_end) return a;
    a.at = *port->ahead;
    a.lines = (uint32_t)((size_t)(port->ahead_end - a.at) / (packets * LINE * 4) + 1) * 4;
    return a;
}


static inline void fetch(ahead_t *a)
{
    const uint8_t *at = a->at, *end = at + a->lines * LINE;
    for (; at != end; at += 4 * LINE)
        for (int k = 0; k < 4; k++) __builtin_prefetch(at + k * LINE, 0, 2);
    a->at = at;
}


static inline int least(int a, int b) { return a < b ? a : b; }


/* What the block that begins with packet `at` is decoded into; the packets after it follow. */
static inline smos__decoded_t *decoded(smos_shard_t *s, int at) { return &s->decoded[(unsigned)at % SMOS__DECODED]; }


static inline __attribute__((always_inline)) void stages(smos_shard_t *s, int n, bool alone)
{
    ahead_t ahead = look_ahead(s->port, (size_t)n);
    for (int at = -2 * BLOCK; at < n; at += BLOCK) {
        smos__decoded_t *d = decoded(s, at + 2 * BLOCK);
        for (int i = at + 2 * BLOCK; i < least(at + 3 * BLOCK, n); i++) {
            if (__builtin_expect(ahead.lines != 0, 1)) fetch(&ahead);
            decode(s, i, d++, alone);
        }
        d = decoded(s, at + BLOCK);
        if (at >= -BLOCK)
            for (int i = at + BLOCK; i < least(at + 2 * BLOCK, n); i++) look_up(s, i, d++, alone);
        d = decoded(s, at);
        if (at >= 0)
            for (int i = at; i < least(at + BLOCK, n); i++) process(s, i, d++, alone);
    }
    if (ahead.at) *s->port->ahead = ahead.at;
}


void smos__process_burst(smos_shard_t *s, int n)
{
    s->plain = !s->filter && !s->closed;
    s->inline_ = s->port && s->port->forward;
    s->can_send = s->port && s->port->send;
    s->datagrams = s->can_send && s->events.datagrams;
    s->need_cold = s->tcp.detail & SMOS_DETAIL_RTT ? 0xff : SMOS__SYN | SMOS__FIN | SMOS__RST;
    s->unchecked = s->config.checksums == 1 ? SMOS__FRAME_NO_CHECKSUM : 0;
    if (s->config.workers == 1 && !s->handover)
        stages(s, n, true);
    else
        stages(s, n, false);
}
