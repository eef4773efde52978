/* Where the TCP engine's streams go: bytes, gaps, anomalies and errors of the flow under the hand, as events. */
#include "shard/shard.h"

#define COMPARED (16u << 10) /* bytes: an answer that was injected before the true one lies within the first few segments */


/* The oldest byte that some socket has not peeked yet; UINT64_MAX: nobody reads. */
static uint64_t oldest_unread(const smos_shard_t *s, uint32_t flow, int receiver)
{
    const smos__set_t *set = smos__set_of(s, &s->arena.hot[flow]);
    uint64_t oldest = UINT64_MAX;
    for (int i = 0; i < set->count; i++) {
        const smos__socket_t *socket = s->events.sockets[set->members[i].slot];
        if (!set->members[i].plan->wants.options.history[receiver] || !socket || !socket->watches) continue;
        if (socket->watches[flow].read[receiver] < oldest) oldest = socket->watches[flow].read[receiver];
    }
    return oldest;
}


/* Keeps delivered bytes readable for those who asked. */
static void keep_history(smos_shard_t *s, int receiver, uint32_t most, const uint8_t *data, uint32_t length, uint64_t offset)
{
    uint64_t oldest = offset + length > most ? oldest_unread(s, s->flow, receiver) : UINT64_MAX;
    uint64_t start = offset + length - (offset + length > most ? most : offset + length);
    const smos__assembler_t *kept = oldest < start ? smos__history_of(&s->history, s->flow, receiver) : NULL;
    uint64_t first = kept ? smos__assembler_next(kept, s->arena.pool, oldest) : UINT64_MAX; /* what never came is not lost here */
    if (oldest < start && first > offset) first = offset > oldest ? offset : oldest; /* more at once than is kept */
    if (first < start) { /* the last chance to read them; the bytes that push them out are there afterwards */
        smos__endpoint_t *e = &s->arena.hot[s->flow].end[!receiver];
        uint64_t end = e->offset;
        e->offset = offset;
        smos__raise_bytes(s, s->flow, SMOS_ERROR, receiver, SMOS_NO_HOOK, NULL, start - first, first, SMOS_ERR_UNREAD);
        e->offset = end;
    }
    smos__history_keep(&s->history, &s->arena, s->flow, receiver, offset, data, length, most);
}


/* How many delivered bytes are kept to compare later copies with. */
static inline uint32_t compare_bytes(const smos_shard_t *s, const smos__set_t *set)
{
    if (__builtin_expect(s->config.compare_bytes != SMOS_COMPARE_HEARD, 0)) return s->config.compare_bytes;
    const bool heard = (set->mask[0][0] | set->mask[0][1]) & SMOS_BIT(SMOS_ANOMALY) || s->config.publish & SMOS_PUBLISH_ANOMALIES;
    if (__builtin_expect(!heard, 1) || !(s->tcp.detail & SMOS_DETAIL_ANOMALIES)) return 0;
    return smos__pool_used(s->arena.pool) < smos__pool_size(s->arena.pool) / 2 ? COMPARED : 0;
}


void smos__sink_data(void *context, int receiver, const uint8_t *data, uint32_t length, uint64_t offset)
{
    smos_shard_t *s = context;
    SMOS__ADD(s, stream_bytes, length);
    const smos__set_t *set = smos__set_of(s, &s->arena.hot[s->flow]);
    uint32_t most = set->options.history[receiver], compared = compare_bytes(s, set);
    if (compared > most) most = compared;
    if (__builtin_expect(most, 0)) keep_history(s, receiver, most, data, length, offset);
    smos__raise_bytes(s, s->flow, SMOS_NEW_DATA, receiver, SMOS_NO_HOOK, data, length, offset, 0);
    if (__builtin_expect(s->events.dropped, 0)) s->arena.hot[s->flow].flags |= SMOS__FLOW_BLOCKED;
}


static void sink_gap(void *context, int receiver, uint64_t offset, uint64_t length)
{
    smos_shard_t *s = context;
    smos__raise_bytes(s, s->flow, SMOS_GAP, receiver, SMOS_NO_HOOK, NULL, length, offset, 0);
}


static void sink_anomaly(void *context, smos__anomaly_t anomaly)
{
    smos_shard_t *s = context;
    smos__anomaly_raise(s, s->flow, anomaly);
}


static void sink_conflict(void *context, const smos__conflict_t *conflict)
{
    smos_shard_t *s = context;
    smos__conflict_raise(s, s->flow, SMOS__ANOMALY_TCP_OVERLAP_DIFFERENT, conflict);
}


static void sink_error(void *context, int receiver, uint32_t code)
{
    smos_shard_t *s = context;
    if (code == SMOS_ERR_FLOW_BUFFER) SMOS__COUNT(s, full_flow_buffer);
    if (code == SMOS_ERR_WORKER_BUFFER) SMOS__COUNT(s, full_worker_buffer);
    if (code == SMOS_ERR_DEPTH) SMOS__COUNT(s, depth_reached);
    smos__raise_detail(s, s->flow, SMOS_ERROR, receiver, SMOS_NO_HOOK, code);
}


static const smos__assembler_t *sink_kept(void *context, int receiver)
{
    const smos_shard_t *s = context;
    return smos__history_of(&s->history, s->flow, receiver);
}


const smos__tcp_sink_t smos__shard_sink = {smos__sink_data, sink_gap, sink_anomaly, sink_conflict, sink_error, sink_kept};
