/* Making, ageing and ending flows. */
#include <string.h>

#include "shard/shard.h"
#include "wire/prefix.h"

#define EVICT_SAMPLE 32
#define EVICT_TURNS 8 /* answered flows passed over for one that is given up */
#define EXPIRE_PERIOD (2 * INT64_C(1000000000))
#define EXPIRE_PER_BURST 256
#define EXPIRE_AHEAD 4 /* slots: what the next bursts will look at */


static void release_slot(smos_shard_t *s, uint32_t i)
{
    smos__flow_cold_t *c = &s->arena.cold[i];
    smos__events_detach(&s->events, i);
    smos__history_forget(&s->history, &s->arena, i);
    if (s->edits.link || s->edits.flow || s->edits.aliases.count) smos__edits_forget(s, i);
    for (int side = 0; side < 2; side++) smos__assembler_clear(&c->end[side].assembler, s->arena.pool);
    if (s->arena.hot[i].flags & SMOS__FLOW_QUEUED) smos__queue_remove(&s->unconfirmed, &s->arena, i);
    if (!s->bulk) smos__table_remove(&s->table, c->hash, i);
    smos__flow_commit(&s->arena.hot[i]);
    smos__arena_give(&s->arena, i);
}


/* Room for one more: the oldest flow that never came to be (one that was answered gets another turn, a flood of SYNs is not), else the best of a sample: closed ones first, then the longest silent. */
static bool evict(smos_shard_t *s)
{
    uint32_t victim = smos__queue_oldest(&s->unconfirmed);
    for (int turns = 0; turns < EVICT_TURNS && victim != SMOS__NO_FLOW && (s->arena.hot[victim].flags & SMOS__FLOW_TWO_SIDED || victim == s->flow); turns++) {
        smos__queue_rotate(&s->unconfirmed);
        victim = smos__queue_oldest(&s->unconfirmed);
    }
    if (victim == s->flow) victim = SMOS__NO_FLOW;
    if (victim == SMOS__NO_FLOW) {
        int64_t best = INT64_MIN;
        for (int i = 0; i < EVICT_SAMPLE; i++) {
            uint32_t at = s->evict_hand++ % s->arena.header->high_water;
            const smos__flow_t *f = &s->arena.hot[at];
            if (f->class_ == SMOS__CLASS_FREE || at == s->flow) continue;
            int64_t merit = s->now_ns - f->last_ns;
            if (f->class_ == SMOS__CLASS_CLOSED || f->class_ == SMOS__CLASS_RESET) merit += INT64_MAX / 2;
            if (merit > best) {
                best = merit;
                victim = at;
            }
        }
    }
    if (victim == SMOS__NO_FLOW) return false;
    smos__flow_end(s, victim, SMOS_END_EVICTED, true);
    return true;
}


/* What each end sends is put together as the other's system does it. */
static void take_overlap_policies(const smos_shard_t *s, const smos__flow_t *f, smos__flow_cold_t *c)
{
    const smos_config_t *config = &s->config;
    const uint8_t none = UINT8_MAX; /* + 1 is 0 */
    c->end[SMOS_CLIENT].overlap = (uint8_t)(smos__prefix_find(config->overlap_prefixes, config->overlap_prefix_count, f->tuple.dst, f->tuple.version, none) + 1) & 15;
    c->end[SMOS_SERVER].overlap = (uint8_t)(smos__prefix_find(config->overlap_prefixes, config->overlap_prefix_count, f->tuple.src, f->tuple.version, none) + 1) & 15;
}


uint32_t smos__flow_make(smos_shard_t *s, const smos__layer_t *l, uint32_t hash, int64_t time_ns, int from, smos__class_t class_)
{
    if (s->record_count >= SMOS__RECORDS) return SMOS__NO_FLOW; /* cannot happen within a burst's bounds; never write beyond */
    uint32_t i = smos__arena_take(&s->arena);
    if (i == SMOS__NO_FLOW) {
        if (s->config.table_full == 1) {
            SMOS__COUNT(s, table_refused);
            return SMOS__NO_FLOW;
        }
        if (!evict(s)) return SMOS__NO_FLOW;
        i = smos__arena_take(&s->arena);
        if (i == SMOS__NO_FLOW) return SMOS__NO_FLOW;
    }
    if (!smos__table_insert(&s->table, hash, i)) {
        smos__arena_give(&s->arena, i);
        return SMOS__NO_FLOW;
    }
    smos__flow_t *f = &s->arena.hot[i];
    smos__flow_cold_t *c = &s->arena.cold[i];
    f->tuple = l->tuple;
    if (from == SMOS_SERVER) { /* the packet goes to the client */
        memcpy(f->tuple.src, l->tuple.dst, 16);
        memcpy(f->tuple.dst, l->tuple.src, 16);
        f->tuple.sport = l->tuple.dport;
        f->tuple.dport = l->tuple.sport;
    }
    f->class_ = (uint8_t)class_;
    f->end_reason = 255;
    f->last_ns = s->now_ns;
    f->end[0].wscale = f->end[1].wscale = 255;
    c->start_ns = time_ns;
    c->hash = hash;
    c->round = (uint16_t)s->round;
    c->vlan[0] = l->vlan[0];
    c->vlan[1] = l->vlan[1];
    c->tunnel = l->tunnel_kind;
    c->tunnel_id = l->tunnel_id;
    if (s->config.overlap_prefix_count) take_overlap_policies(s, f, c);
    if (s->tcp.detail & SMOS_DETAIL_HISTORY) smos__zeek_init(&s->arena.conn[i].zeek, s->arena.conn[i].history, from == SMOS_SERVER);
    smos__events_attach(&s->events, i, l->ip, l->ip_len, l->ip_captured);
    smos__queue_push(&s->unconfirmed, &s->arena, i);
    SMOS__COUNT(s, flows_made);
    switch (f->tuple.proto) {
    case 6: SMOS__COUNT(s, flows_made_tcp); break;
    case 17: SMOS__COUNT(s, flows_made_udp); break;
    case 1: case 58: SMOS__COUNT(s, flows_made_icmp); break;
    default: SMOS__COUNT(s, flows_made_other); break;
    }
    return i;
}


void smos__flow_info(const smos_shard_t *s, uint32_t i, smos_flow_info_t *out)
{
    const smos__flow_t *f = &s->arena.hot[i];
    const smos__flow_cold_t *c = &s->arena.cold[i];
    const smos__flow_conn_t *conn = &s->arena.conn[i];
    memset(out, 0, sizeof *out);
    out->flow = smos__flow_handle(&s->arena, i);
    out->tuple = f->tuple;
    out->start_ns = c->start_ns;
    out->end_ns = f->last_ns;
    for (int side = 0; side < 2; side++) {
        const smos__endpoint_t *e = &f->end[side];
        const smos__endpoint_cold_t *ec = &c->end[side];
        smos_endpoint_info_t *o = &out->side[side];
        o->packets = e->packets;
        o->payload_bytes = e->payload_bytes;
        o->wire_bytes = e->wire_bytes;
        o->state = e->state;
        if (f->tuple.proto == 6) {
            o->stream_bytes = e->offset - ec->skipped;
            o->missing_bytes = smos__missing(ec);
            o->retransmits = ec->retransmits;
            o->out_of_order = ec->out_of_order;
            o->overlaps_conflicting = ec->conflicts;
            o->zero_window_ms = ec->zero_ms + (e->flags & SMOS__EP_ZERO_WINDOW && s->tcp.detail & SMOS_DETAIL_RTT ? (uint32_t)((f->last_ns - c->start_ns) / 1000000) : 0);
            o->rtt_handshake_us = ec->rtt_handshake_us;
            o->rtt_min_us = ec->rtt_min_us;
            o->mss = ec->mss;
            o->options = ec->options;
            if (s->tcp.detail & SMOS_DETAIL_HISTORY)
                o->stream_span = smos__zeek_span(&conn->zeek, side);
            else if (e->flags & SMOS__EP_BASE)
                o->stream_span = e->offset + (uint32_t)smos__seq_max(0, e->snd_nxt - e->rcv_nxt) - (e->flags & SMOS__EP_FIN && smos__seq_gt(e->snd_nxt, c->end[side].fin_seq));
        } else {
            o->stream_span = e->payload_bytes;
        }
        o->wscale = e->wscale;
    }
    if (s->tcp.detail & SMOS_DETAIL_HISTORY) {
        memcpy(out->history, conn->history, sizeof out->history);
        const char *state = smos__zeek_conn_state(&conn->zeek, conn->history, f->tuple.proto);
        memcpy(out->conn_state, state, strnlen(state, sizeof out->conn_state - 1));
    }
    out->vlan[0] = c->vlan[0];
    out->vlan[1] = c->vlan[1];
    out->tunnel_id = c->tunnel_id;
    out->tunnel = c->tunnel;
    out->end_reason = f->end_reason;
    out->midstream = f->flags & SMOS__FLOW_MIDSTREAM ? 1 : 0;
    out->existing = f->flags & SMOS__FLOW_EXISTING ? 1 : 0;
    out->anomalies = c->anomalies;
}


void smos__flow_end(smos_shard_t *s, uint32_t i, smos_end_reason_t reason, bool report)
{
    smos__flow_t *f = &s->arena.hot[i];
    smos__flow_cold_t *c = &s->arena.cold[i];
    static const int REASON_COUNTER[] = {SMOS__C_end_fin, SMOS__C_end_rst, SMOS__C_end_idle, SMOS__C_end_evicted, SMOS__C_end_capture_end, SMOS__C_end_stopped};
    /* What ends here was not caused by the packet under the hand, if there is one. */
    bool in_packet = s->events.in_packet;
    const smos_tuple_t *tuple = s->events.call.tuple;
    uint32_t under_hand = s->flow;
    s->events.in_packet = false;
    s->events.call.packet = NULL;
    s->flow = SMOS__NO_FLOW;
    smos__flow_begin(f);
    if (f->epoch != s->events.epoch) smos__events_refresh(&s->events, i, NULL, 0, 0);
    if (!(f->flags & SMOS__FLOW_ENDED)) {
        if (f->end_reason == 255 && f->end[0].flags & f->end[1].flags & SMOS__EP_FIN) f->end_reason = SMOS_END_FIN;
        if (f->end_reason == 255) f->end_reason = (uint8_t)reason;
        if (report) {
            if (f->tuple.proto == 6) {
                smos__tcp_t t = {f, c, &s->arena.conn[i], s->arena.pool, &s->tcp, &smos__set_of(s, f)->options, &smos__shard_sink, s, s->now_ns, NULL};
                s->flow = i;
                smos__tcp_finish(&t);
                s->flow = SMOS__NO_FLOW;
            }
            if (reason == SMOS_END_EVICTED) smos__raise_detail(s, i, SMOS_ERROR, SMOS_CLIENT, SMOS_NO_HOOK, SMOS_ERR_TABLE);
            smos__raise_detail(s, i, SMOS_CONN_END, SMOS_CLIENT, SMOS_NO_HOOK, f->end_reason);
            smos__raise_detail(s, i, SMOS_CONN_END, SMOS_SERVER, SMOS_NO_HOOK, f->end_reason);
        }
    }
    s->counters[REASON_COUNTER[f->end_reason]]++;
    SMOS__ADD(s, missing_bytes, smos__missing(&c->end[0]) + smos__missing(&c->end[1]));
    SMOS__ADD(s, retransmits, c->end[0].retransmits + (uint64_t)c->end[1].retransmits);
    if (!report)
        SMOS__COUNT(s, end_unreported);
    else if (s->collect && s->record_count < SMOS__RECORDS)
        smos__flow_info(s, i, &s->records[s->record_count++]);
    release_slot(s, i);
    s->events.in_packet = in_packet;
    s->events.call.tuple = tuple;
    s->flow = under_hand;
}


/* 64ths of a timeout that are left when `use` of `from` to `all` slots are taken: all of it below, `least` when the last one is. */
static int64_t share_of(uint64_t use, uint64_t from, uint64_t all, int64_t least)
{
    return use <= from ? 64 : 64 - (64 - least) * (int64_t)(use - from) / (int64_t)(all - from);
}


/* Silent for longer than what is left of its timeout. As the table fills beyond `adaptive` per cent, timeouts get shorter in proportion (as those of
 * PF do, pf.conf(5) adaptive.start): at once those of flows that were not confirmed by both ends, down to a 16th; from half way on those of all
 * others, down to a fourth. A flow whose next packet comes in time for the full timeout, and before the hand, lives on. */
static bool overdue(const smos_shard_t *s, const smos__flow_t *f, const int64_t share[2])
{
    int64_t timeout = s->timeout[f->class_];
    return timeout != SMOS__NEVER && s->now_ns - f->last_ns > timeout / 64 * share[f->flags & SMOS__FLOW_QUEUED ? 0 : 1];
}


/* Walks the slots, each once in EXPIRE_PERIOD of packet time, and ends what was silent for longer than its timeout. A flow whose next packet
 * comes before the hand does is ended then, so when this one comes decides nothing but when the end is told. */
void smos__flow_expire(smos_shard_t *s)
{
    uint32_t slots = s->arena.header->high_water;
    int64_t elapsed = s->now_ns - s->expire_ns;
    if (!slots || elapsed <= 0) return;
    uint32_t due = EXPIRE_PER_BURST;
    if (elapsed < EXPIRE_PERIOD) {
        due = (uint32_t)((double)slots * (double)elapsed / (double)EXPIRE_PERIOD);
        if (!due) return; /* the time is kept for the next burst */
        if (due > EXPIRE_PER_BURST) due = EXPIRE_PER_BURST;
    }
    s->expire_ns = s->now_ns;
    if (due > slots) due = slots;
    uint64_t all = s->arena.header->capacity, use = s->arena.header->in_use, from = s->config.adaptive ? all * s->config.adaptive / 100 : all;
    const int64_t share[2] = {share_of(use, from, all, 4), share_of(use, (from + all) / 2, all, 16)};
    for (; due; due--) {
        if (s->expire_hand >= slots) s->expire_hand = 0;
        __builtin_prefetch(&s->arena.hot[s->expire_hand + EXPIRE_AHEAD]); /* a hint: it may lie beyond the last */
        uint32_t i = s->expire_hand++;
        const smos__flow_t *f = &s->arena.hot[i];
        if (f->class_ == SMOS__CLASS_FREE) continue;
        bool expired = smos__flow_expired(s, f, s->now_ns);
        if (!expired && !(use > from && overdue(s, f, share))) continue;
        if (!expired) SMOS__COUNT(s, end_idle_early);
        smos__flow_end(s, i, SMOS_END_IDLE, true);
    }
}
