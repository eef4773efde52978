/* A burst's way through the worker: decode, find, process, settle, each stage some packets behind the one before. */
#include "shard/shard.h"

#define PREFETCH 8 /* packets between the stages */
#define LINE 64    /* bytes of the cache */

_Static_assert(SMOS__DECODED >= 2 * PREFETCH + 1, "a packet's layers are kept until it was processed");


/* The usual frame in the usual set-up, one layer of our own, no filter: the same as smos__process_frame, said shorter. */
static inline bool process_plain(smos_shard_t *s, int i)
{
    const smos__frame_t *frame = &s->frames[i];
    smos__decoded_t *d = &s->decoded[i % SMOS__DECODED];
    smos__layer_t *l = &d->layer[0];
    if (d->layers != 1 || d->result != SMOS__WIRE_OK || d->anomaly_count || l->flags & SMOS__ICMP_ERROR || !s->mine[i] || !s->plain || s->events.raw) return false;
    s->nested = false;
    if (frame->time_ns > s->now_ns) smos__advance_time(s, frame->time_ns);
    SMOS__COUNT(s, packets);
    SMOS__ADD(s, bytes, frame->len);
    smos__counter_t how = smos__process_layer(s, frame, l, s->hashes[i], s->hints[i], true);
    s->counters[how == SMOS__C_drop_no_memory ? smos__unfollowed(s, how) : how]++;
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


/* Stages of the pipeline over a burst. Each runs PREFETCH packets behind the one before, so that what it needs has come from memory,
 * and few enough packets are under way that their lines stay in the first-level cache. */

/* Several workers read the same capture: a plain frame of another one's is not worth decoding. What is left of it says that it was one, and whose. */
static bool others(smos_shard_t *s, int i, smos__decoded_t *d)
{
    smos_tuple_t tuple;
    if (!smos__peek_tuple(&s->frames[i], &tuple)) return false;
    uint32_t hash = smos__owner_hash(&tuple, s->config.owner_seed);
    s->mine[i] = smos__owner(hash, s->config.workers) == s->config.worker;
    if (s->mine[i]) return false;
    d->result = SMOS__WIRE_OK;
    d->layers = d->anomaly_count = d->fragments = 0;
    d->owner_hash = hash;
    return true;
}


static void stage_decode(smos_shard_t *s, int i)
{
    smos__decoded_t *d = &s->decoded[i % SMOS__DECODED];
    s->mine[i] = s->config.workers == 1;
    if (!s->mine[i] && !s->handover && others(s, i, d)) return;
    if (s->config.checksums == 1) s->frames[i].flags |= SMOS__FRAME_NO_CHECKSUM;
    if (s->handover && s->frames[i].flags & SMOS__FRAME_CARRIES)
        smos__handover_decode(s, &s->frames[i], d);
    else if (!smos__decode_fast(&s->frames[i], d)) {
        if (s->handover)
            smos__handover_decode(s, &s->frames[i], d);
        else
            smos__decode(&s->frames[i], s->defrag, d);
        if (s->datagrams && d->fragments) smos__datagram_whole(s, &s->frames[i], d);
    }
    if (d->layers != 1) return;
    smos_tuple_t *tuple = &d->layer[0].tuple;
    if (s->config.key == 0 && (tuple->vlan | tuple->tunnel)) tuple->vlan = 0, tuple->tunnel = 0; /* else not touched: written in parts, the word that the hash reads next would have to wait for them */
    s->hashes[i] = smos__table_hash(&s->table, tuple);
    __builtin_prefetch(smos__table_bucket(&s->table, s->hashes[i]));
}


static void stage_hint(smos_shard_t *s, int i)
{
    s->hints[i] = SMOS__NO_FLOW;
    if (s->decoded[i % SMOS__DECODED].layers != 1) return;
    uint32_t hint = s->hints[i] = smos__table_hint(&s->table, s->hashes[i]);
    if (hint == SMOS__NO_FLOW) return;
    const char *f = (const char *)&s->arena.hot[hint];
    __builtin_prefetch(f, 1);
    __builtin_prefetch(f + 64, 1);
    __builtin_prefetch(f + 128, 1);
    const char *c = (const char *)&s->arena.cold[hint];
    const size_t history = offsetof(smos__flow_cold_t, zeek);
    if (s->tcp.detail & SMOS_DETAIL_HISTORY)
        for (size_t at = history; at < history + 2 * LINE; at += LINE) __builtin_prefetch(c + at, 1);
    /* Round-trip times, and what opens or closes a connection, need the rest of the cold record; for other packets, no branch but the same line again. */
    bool whole = s->tcp.detail & SMOS_DETAIL_RTT || s->decoded[i % SMOS__DECODED].layer[0].tcp_flags & (SMOS__SYN | SMOS__FIN | SMOS__RST);
    const char *rest = whole ? c : f;
    for (size_t at = 0; at < history; at += LINE) __builtin_prefetch(rest + at, 1);
    __builtin_prefetch(rest + (whole ? history - 1 : 0), 1); /* records do not begin with a line */
}


/* The bytes of the next burst, fetched a few lines at a time between the stages: memory works while the processor does. */
typedef struct ahead {
    const uint8_t *at;
    uint32_t pairs; /* of lines, a step */
} ahead_t;

static ahead_t look_ahead(const smos__port_t *port, size_t steps)
{
    ahead_t a = {0};
    if (!port || !port->ahead || *port->ahead >= port->ahead_end) return a;
    a.at = *port->ahead;
    a.pairs = (uint32_t)(((size_t)(port->ahead_end - a.at) + steps * LINE) / (steps * LINE * 2));
    return a;
}

static inline void fetch(ahead_t *a)
{
    const uint8_t *at = a->at;
    for (uint32_t k = a->pairs; k; k--, at += 2 * LINE) {
        __builtin_prefetch(at, 0, 2);
        __builtin_prefetch(at + LINE, 0, 2);
    }
    a->at = at;
}


void smos__process_burst(smos_shard_t *s, int n)
{
    ahead_t ahead = look_ahead(s->port, (size_t)n * 3);
    s->plain = !s->filter && !s->closed;
    s->inline_ = s->port && s->port->forward;
    s->can_send = s->port && s->port->send;
    s->datagrams = s->can_send && s->events.datagrams;
    for (int i = 0; i < n + 2 * PREFETCH; i++) {
        fetch(&ahead);
        if (i < n) stage_decode(s, i);
        fetch(&ahead);
        if (i >= PREFETCH && i - PREFETCH < n) stage_hint(s, i - PREFETCH);
        fetch(&ahead);
        if (i >= 2 * PREFETCH) {
            int k = i - 2 * PREFETCH;
            s->verdict = SMOS__PASS;
            s->edits.active = false;
            if (!process_plain(s, k)) smos__process_frame(s, &s->frames[k], &s->decoded[k % SMOS__DECODED], s->hashes[k], s->hints[k]);
            if (s->inline_) settle(s, &s->frames[k]);
        }
    }
    if (ahead.at) *s->port->ahead = ahead.at;
}
