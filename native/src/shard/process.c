/* A packet's way through the worker: decode, look up, sender, SENDER events, receiver and streams, RECEIVER events, verdict. */
#include <string.h>

#include "shard/shard.h"

#define TCP 6
#define UDP 17
#define FLOW_ANOMALY_EVENTS 16   /* published per flow; the rest is only counted */
#define ANOMALIES_PER_SECOND 1000 /* published in all, per second of packet time */
#define PREFETCH 8 /* packets between the stages */
#define LINE 64    /* bytes of the cache */

_Static_assert(SMOS__DECODED >= 2 * PREFETCH + 1, "a packet's layers are kept until it was processed");


/* ---- events ---- */

static void fill_packet(smos_shard_t *s);


/* What all events of the packet have in common. */
static inline void show(smos_shard_t *s, const smos__flow_t *f, uint32_t flow)
{
    smos_call_t *call = &s->call;
    call->flow = s->crumb->flow = smos__flow_handle(&s->arena, flow);
    call->tuple = &f->tuple;
    call->time_ns = s->now_ns;
    call->existing = (f->flags & SMOS__FLOW_EXISTING) / SMOS__FLOW_EXISTING;
    call->packet = s->events.in_packet ? &s->packet : NULL;
    s->shown = s->events.in_packet ? flow : SMOS__NO_FLOW;
    if (s->events.in_packet) fill_packet(s);
}


void smos__show_packet(smos_shard_t *s)
{
    fill_packet(s);
    s->call.packet = &s->packet;
}


static inline void raise(smos_shard_t *s, uint32_t flow, uint32_t what, uint32_t detail)
{
    smos_call_t *call = &s->call;
    const smos__flow_t *f = &s->arena.hot[flow];
    if (s->shown != flow) show(s, f, flow);
    call->detail = detail;
    call->event = (uint8_t)what;
    call->side = (uint8_t)(what >> 8);
    call->hook = (uint8_t)(what >> 16);
    smos__events_raise(&s->events, f, flow, call, (uint8_t)what);
}


/* Not inlined: whoever has no module does not pay for the registers that this needs. */
__attribute__((noinline)) void smos__raise_wanted(smos_shard_t *s, uint32_t flow, uint32_t what, uint32_t detail)
{
    raise(s, flow, what, detail);
}


__attribute__((noinline)) void smos__raise_bytes_wanted(smos_shard_t *s, uint32_t flow, uint32_t what, const uint8_t *data, uint64_t length, uint64_t offset, uint32_t detail)
{
    s->call.data = data;
    s->call.length = length;
    s->call.offset = offset;
    raise(s, flow, what, detail);
    s->call.data = NULL;
    s->call.length = s->call.offset = 0;
}


static void raise_anomaly(smos_shard_t *s, uint32_t flow, uint32_t anomaly, const smos__conflict_t *conflict)
{
    if (!(s->tcp.detail & SMOS_DETAIL_ANOMALIES)) return;
    s->counters[SMOS__C_FIXED + anomaly]++;
    if (flow == SMOS__NO_FLOW) return;
    smos__flow_cold_t *c = &s->arena.cold[flow];
    c->anomalies++;
    if (s->config.publish & SMOS_PUBLISH_ANOMALIES && c->published < FLOW_ANOMALY_EVENTS) {
        int64_t second = s->now_ns / 1000000000;
        if (second != s->anomaly_second) {
            s->anomaly_second = second;
            s->anomaly_budget = ANOMALIES_PER_SECOND;
        }
        if (s->anomaly_budget) {
            s->anomaly_budget--;
            c->published++;
            smos__outbox_anomaly(&s->outbox, s->now_ns, smos__anomaly_name(anomaly), smos__flow_handle(&s->arena, flow), &s->arena.hot[flow].tuple, conflict);
        }
    }
    int side = s->events.in_packet ? s->from : SMOS_CLIENT;
    if (conflict)
        smos__raise_bytes(s, flow, SMOS_ANOMALY, side, SMOS_NO_HOOK, conflict->copies, conflict->length, conflict->offset, anomaly);
    else
        smos__raise_detail(s, flow, SMOS_ANOMALY, side, SMOS_NO_HOOK, anomaly);
}


void smos__anomaly_raise(smos_shard_t *s, uint32_t flow, uint32_t anomaly) { raise_anomaly(s, flow, anomaly, NULL); }


/* The oldest byte that some socket has not peeked yet; UINT64_MAX: nobody reads. */
static uint64_t oldest_unread(const smos_shard_t *s, uint32_t flow, int receiver)
{
    const smos__set_t *set = &s->events.sets.set[s->arena.hot[flow].set];
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


static void sink_data(void *context, int receiver, const uint8_t *data, uint32_t length, uint64_t offset)
{
    smos_shard_t *s = context;
    SMOS__ADD(s, stream_bytes, length);
    uint32_t most = s->events.sets.set[s->arena.hot[s->flow].set].options.history[receiver];
    if (__builtin_expect(most, 0)) keep_history(s, receiver, most, data, length, offset);
    smos__raise_bytes(s, s->flow, SMOS_NEW_DATA, receiver, SMOS_NO_HOOK, data, length, offset, 0);
    if (s->events.dropped) s->arena.hot[s->flow].flags |= SMOS__FLOW_BLOCKED;
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
    raise_anomaly(s, s->flow, SMOS__ANOMALY_TCP_OVERLAP_DIFFERENT, conflict);
}


static void sink_error(void *context, int receiver, uint32_t code)
{
    smos_shard_t *s = context;
    if (code == SMOS_ERR_FLOW_BUFFER) SMOS__COUNT(s, full_flow_buffer);
    if (code == SMOS_ERR_WORKER_BUFFER) SMOS__COUNT(s, full_worker_buffer);
    if (code == SMOS_ERR_DEPTH) SMOS__COUNT(s, depth_reached);
    smos__raise_detail(s, s->flow, SMOS_ERROR, receiver, SMOS_NO_HOOK, code);
}


const smos__tcp_sink_t smos__shard_sink = {sink_data, sink_gap, sink_anomaly, sink_conflict, sink_error};


/* ---- flows ---- */

/* A SYN that does not belong to the flow its tuple leads to: the port was reused (RFC 9293 3.6.1, RFC 6191). */
static bool begins_another(const smos__flow_t *f, const smos__layer_t *l, int from)
{
    if ((l->tcp_flags & (SMOS__SYN | SMOS__ACK | SMOS__RST)) != SMOS__SYN) return false;
    const smos__endpoint_t *e = &f->end[from];
    if (e->flags & SMOS__EP_BASE && e->isn == l->seq) return false;
    if (f->class_ == SMOS__CLASS_CLOSED || f->class_ == SMOS__CLASS_RESET) return true;
    /* Nobody accepted the first SYN: this is another try of its own. */
    return from == SMOS_CLIENT && e->flags & SMOS__EP_SYN && !(f->end[!from].flags & SMOS__EP_SYN) && f->class_ == SMOS__CLASS_EMBRYONIC;
}


static smos__class_t first_class(const smos__layer_t *l)
{
    if (l->tuple.proto == UDP) return SMOS__CLASS_UDP;
    if (l->tuple.proto != TCP) return SMOS__CLASS_ICMP;
    return l->tcp_flags & SMOS__SYN ? SMOS__CLASS_EMBRYONIC : SMOS__CLASS_ESTABLISHED;
}


#define COPIED_FRAME (offsetof(smos_packet_t, ip) - offsetof(smos_packet_t, frame))
#define COPIED_LAYER (offsetof(smos_packet_t, from) - offsetof(smos_packet_t, ip))
#define SAME(field) (offsetof(smos_packet_t, field) - offsetof(smos_packet_t, ip) == offsetof(smos__layer_t, field) - offsetof(smos__layer_t, ip))
_Static_assert(SAME(payload) && SAME(ip_len) && SAME(seq) && SAME(urgent) && SAME(tcp_flags), "copied in one piece");
_Static_assert(offsetof(smos__frame_t, time_ns) == offsetof(smos_packet_t, time_ns) && offsetof(smos__frame_t, len) == offsetof(smos_packet_t, len), "so is the frame");

static void fill_packet(smos_shard_t *s)
{
    const smos__frame_t *frame = s->frame;
    const smos__layer_t *l = s->layer;
    smos_packet_t *p = &s->packet;
    memcpy(p, frame, COPIED_FRAME);
    memcpy(&p->ip, &l->ip, COPIED_LAYER);
    p->from = (uint8_t)s->from;
    p->number = frame->number;
    if (__builtin_expect(l->tuple.proto != TCP, 0)) p->seq = p->ack = p->window = p->urgent = p->tcp_flags = 0;
}


static inline void count_flow_packet(smos_shard_t *s, const smos__layer_t *l)
{
    int kind = l->tuple.proto == TCP ? 0 : l->tuple.proto == UDP ? 1 : l->tuple.proto == 1 || l->tuple.proto == 58 ? 2 : 3;
    s->counters[SMOS__C_flow_packets_tcp + kind]++;
    s->counters[SMOS__C_flow_bytes_tcp + kind] += l->ip_len;
}


static void tcp_timeout_class(smos_shard_t *s, uint32_t i, uint32_t facts)
{
    smos__flow_t *f = &s->arena.hot[i];
    if (facts & SMOS__TCP_REVIVED) {
        s->arena.hot[i].class_ = SMOS__CLASS_EMBRYONIC;
        f->end_reason = 255;
    }
    if (facts & SMOS__TCP_RESET) {
        if (f->class_ != SMOS__CLASS_CLOSED) s->arena.hot[i].class_ = SMOS__CLASS_RESET;
        if (f->end_reason == 255) f->end_reason = f->end[0].flags & f->end[1].flags & SMOS__EP_FIN ? SMOS_END_FIN : SMOS_END_RST;
    } else if (facts & SMOS__TCP_CLOSED) {
        if (f->class_ != SMOS__CLASS_RESET && f->class_ != SMOS__CLASS_CLOSED) s->arena.hot[i].class_ = SMOS__CLASS_CLOSED;
        if (f->end_reason == 255) f->end_reason = SMOS_END_FIN;
    } else if (f->class_ == SMOS__CLASS_EMBRYONIC && f->end[0].state >= SMOS_TCP_ESTABLISHED && f->end[1].state >= SMOS_TCP_ESTABLISHED) {
        s->arena.hot[i].class_ = SMOS__CLASS_ESTABLISHED;
        SMOS__COUNT(s, flows_established);
    }
    if (f->flags & SMOS__FLOW_QUEUED && f->flags & SMOS__FLOW_TWO_SIDED && f->class_ == SMOS__CLASS_ESTABLISHED) smos__queue_remove(&s->unconfirmed, &s->arena, i);
}


static inline smos__tcp_t under_hand(smos_shard_t *s, uint32_t i)
{
    smos__flow_t *f = &s->arena.hot[i];
    return (smos__tcp_t){f, &s->arena.cold[i], s->arena.pool, &s->tcp, &s->events.sets.set[f->set].options, &smos__shard_sink, s, s->now_ns};
}


/* Data that was dropped on its way never was sent, as far as its receiver is concerned: when it comes again it is new, and can be edited. */
static void unsend(smos_shard_t *s, const smos__layer_t *l, smos__endpoint_t *sender)
{
    if (l->payload_len && !(l->tcp_flags & (SMOS__SYN | SMOS__FIN | SMOS__RST))) sender->snd_nxt = s->sent_before;
}


/* SENDER and RECEIVER steps of one TCP segment. */
static void process_tcp(smos_shard_t *s, uint32_t i, const smos__layer_t *l, int from, bool fresh)
{
    smos__flow_t *f = &s->arena.hot[i];
    smos__flow_cold_t *c = &s->arena.cold[i];
    s->sent_before = f->end[from].packets > 1 ? f->end[from].snd_nxt : l->seq;
    if (s->tcp.detail & SMOS_DETAIL_HISTORY) {
        smos__zeek_segment_t z = {l->seq, l->ack, l->payload_len, l->window, l->tcp_flags, (uint8_t)from};
        smos__zeek_segment(&c->zeek, c->history, &z);
    }
    const uint16_t plain = SMOS__FLOW_STREAMS | SMOS__FLOW_TWO_SIDED | SMOS__FLOW_SETUP | SMOS__FLOW_STARTED_RECEIVER | SMOS__FLOW_EXISTING;
    if ((f->flags & ~plain) == 0 && smos__tcp_fast(f, l, from)) {
        if (s->tcp.detail & SMOS_DETAIL_RTT) {
            smos__tcp_t t = under_hand(s, i);
            smos__tcp_rtt(&t, l, from);
        }
        if (!s->events.dropped) smos__raise(s, i, SMOS_PKT_IN, from, SMOS_SENDER);
        if (s->events.dropped) return unsend(s, l, &f->end[from]);
        if (l->payload_len && l->payload_captured == l->payload_len && !s->tcp.depth && !(f->end[from].flags & SMOS__EP_STOPPED)) { /* smos__stream_segment, said shorter */
            uint64_t offset = f->end[from].offset;
            f->end[from].offset += l->payload_len;
            f->end[from].rcv_nxt += l->payload_len;
            if (f->flags & SMOS__FLOW_STREAM_OF(from)) sink_data(s, !from, l->payload, l->payload_len, offset);
        } else if (l->payload_len) {
            smos__tcp_t t = under_hand(s, i);
            smos__stream_segment(&t, from, l->seq, l->payload, l->payload_captured, l->payload_len);
        }
        smos__raise(s, i, SMOS_PKT_IN, !from, SMOS_RECEIVER);
        return;
    }
    smos__tcp_t t = under_hand(s, i);
    uint32_t facts = smos__tcp_sender(&t, l, from);
    if (s->events.dropped) return unsend(s, l, &f->end[from]); /* at an ANOMALY */
    if (f->flags & SMOS__FLOW_BLOCKED && facts & SMOS__TCP_REXMIT) s->events.dropped = true;
    smos__raise(s, i, SMOS_PKT_IN, from, SMOS_SENDER);
    if (fresh && !s->events.dropped) smos__raise(s, i, SMOS_CONN_START, from, SMOS_SENDER);
    if (facts & SMOS__TCP_REXMIT && !s->events.dropped) smos__raise(s, i, SMOS_REXMIT, from, SMOS_SENDER);
    if (facts & SMOS__TCP_SENDER_STATE && !s->events.dropped) smos__raise_detail(s, i, SMOS_STATE_CHANGE, from, SMOS_SENDER, f->end[from].state);
    if (s->events.dropped) return unsend(s, l, &f->end[from]);
    if (!(f->flags & SMOS__FLOW_STARTED_RECEIVER)) {
        f->flags |= SMOS__FLOW_STARTED_RECEIVER;
        smos__raise(s, i, SMOS_CONN_START, !from, SMOS_RECEIVER);
    }
    if (facts & SMOS__TCP_REXMIT) smos__raise(s, i, SMOS_REXMIT, !from, SMOS_RECEIVER); /* before its bytes are merged */
    t.options = &s->events.sets.set[f->set].options; /* a handler may have changed them */
    facts = smos__tcp_receiver(&t, l, from, facts);
    smos__raise(s, i, SMOS_PKT_IN, !from, SMOS_RECEIVER);
    if (facts & SMOS__TCP_SETUP) smos__raise(s, i, SMOS_CONN_SETUP, !from, SMOS_RECEIVER);
    if (facts & SMOS__TCP_RECEIVER_STATE) smos__raise_detail(s, i, SMOS_STATE_CHANGE, !from, SMOS_RECEIVER, f->end[!from].state);
    if (f->class_ != SMOS__CLASS_ESTABLISHED || facts & (SMOS__TCP_CLOSED | SMOS__TCP_RESET) || f->flags & SMOS__FLOW_QUEUED) tcp_timeout_class(s, i, facts);
}


static void process_datagram(smos_shard_t *s, uint32_t i, int from, bool fresh)
{
    smos__flow_t *f = &s->arena.hot[i];
    smos__flow_cold_t *c = &s->arena.cold[i];
    if (s->tcp.detail & SMOS_DETAIL_HISTORY && f->tuple.proto == UDP) smos__zeek_datagram(&c->zeek, c->history, from);
    if (!s->events.dropped) smos__raise(s, i, SMOS_PKT_IN, from, SMOS_SENDER);
    if (fresh && !s->events.dropped) smos__raise(s, i, SMOS_CONN_START, from, SMOS_SENDER);
    if (s->events.dropped) return;
    if (!(f->flags & SMOS__FLOW_STARTED_RECEIVER)) {
        f->flags |= SMOS__FLOW_STARTED_RECEIVER;
        smos__raise(s, i, SMOS_CONN_START, !from, SMOS_RECEIVER);
    }
    smos__raise(s, i, SMOS_PKT_IN, !from, SMOS_RECEIVER);
    if (f->flags & SMOS__FLOW_QUEUED && f->flags & SMOS__FLOW_TWO_SIDED) smos__queue_remove(&s->unconfirmed, &s->arena, i);
}


static smos__counter_t orphan(smos_shard_t *s, const smos__frame_t *frame, const smos__layer_t *l)
{
    s->frame = frame;
    s->layer = l;
    s->from = SMOS_CLIENT;
    fill_packet(s);
    s->counters[SMOS__C_event_orphan]++;
    smos_call_t call = {.packet = &s->packet, .tuple = &l->tuple, .time_ns = s->now_ns, .event = SMOS_ORPHAN, .side = SMOS_CLIENT};
    s->events.in_packet = true;
    s->events.dropped = false;
    smos__events_raise_orphan(&s->events, &call, l->ip, l->ip_len, l->ip_captured);
    s->events.in_packet = false;
    if (s->events.dropped) {
        SMOS__COUNT(s, drop_verdict);
        s->verdict = SMOS__DROP;
    }
    return SMOS__C_packets_orphan;
}


/* The packet is on its way out: of a flow that is edited, or with addresses that were. */
static void leave_edited(smos_shard_t *s, uint32_t i, smos__layer_t *l, int from, uint32_t came)
{
    if (s->edits.active) smos__edit_translated(s, i, l, from);
    if (l->tuple.proto != TCP || !(s->arena.hot[i].flags & SMOS__FLOW_EDITED)) return;
    smos__edit_exit(s, i, l, from);
    if (!came || l->payload_len || l->tcp_flags & (SMOS__SYN | SMOS__FIN | SMOS__RST)) return;
    /* All that it carried was taken out: nobody else will acknowledge that. */
    smos_injection_t ack = {.to = (uint8_t)from, .tcp_flags = SMOS__ACK};
    if (s->can_send) smos__inject(s, i, &ack);
}


/* One layer through its flow; not `readable`: its transport header is cut or lies, it is only counted. Returns the counter under which its frame goes if it is the innermost. */
static smos__counter_t process_layer(smos_shard_t *s, const smos__frame_t *frame, smos__layer_t *l, uint32_t hash, uint32_t hint, bool readable)
{
    int from = SMOS_CLIENT;
    bool fresh = false;
    bool tcp = l->tuple.proto == TCP;
    uint32_t i = hint;
    /* The hint is from before the burst: good only if that flow is still there and the right one. */
    if (i == SMOS__NO_FLOW || s->arena.hot[i].class_ == SMOS__CLASS_FREE || !smos__tuple_match(&s->arena.hot[i].tuple, &l->tuple, &from))
        i = smos__table_find(&s->table, s->arena.hot, hash, &l->tuple, &from);
    if (i == SMOS__NO_FLOW && s->edits.aliases.count) i = smos__alias_find(&s->edits.aliases, &l->tuple, hash, &from);
    if (i != SMOS__NO_FLOW) {
        smos__flow_t *f = &s->arena.hot[i];
        if (smos__flow_expired(s, f, s->now_ns)) {
            smos__flow_end(s, i, SMOS_END_IDLE, true);
            i = SMOS__NO_FLOW;
        } else if (tcp && l->tcp_flags & SMOS__SYN && begins_another(f, l, from)) {
            smos__flow_end(s, i, SMOS_END_IDLE, true);
            i = SMOS__NO_FLOW;
        }
    }
    if (i == SMOS__NO_FLOW) {
        bool syn = tcp && l->tcp_flags & SMOS__SYN && !(l->tcp_flags & SMOS__RST);
        if (tcp && !syn && s->config.midstream == 1) return orphan(s, frame, l);
        from = tcp && (l->tcp_flags & (SMOS__SYN | SMOS__ACK)) == (SMOS__SYN | SMOS__ACK) ? SMOS_SERVER : SMOS_CLIENT;
        i = smos__flow_make(s, l, hash, frame->time_ns, from, first_class(l));
        if (i == SMOS__NO_FLOW) return SMOS__C_drop_no_memory;
        fresh = true;
        if (tcp && !(syn && from == SMOS_CLIENT)) {
            s->arena.hot[i].flags |= SMOS__FLOW_MIDSTREAM;
            SMOS__COUNT(s, flows_midstream);
        }
    }
    smos__flow_t *f = &s->arena.hot[i];
    smos__endpoint_t *e = &f->end[from];
    smos__flow_begin(f);
    if (__builtin_expect(f->epoch != s->events.epoch, 0)) smos__events_refresh(&s->events, i, l->ip, l->ip_len, l->ip_captured);
    s->flow = i;
    s->events.in_packet = true;
    s->events.dropped = false;
    s->crumb->packet = frame->number;
    s->frame = frame;
    s->layer = l;
    s->from = from;
    e->packets++;
    if (__builtin_expect(s->can_send, 0) && e->packets == 1) smos__edit_note_link(s, i, frame, l, from);
    const uint32_t came = l->payload_len;
    e->payload_bytes += l->payload_len;
    e->wire_bytes += frame->len;
    f->last_ns = s->now_ns; /* not the frame's own time, which may lie in the past */
    if (!(f->flags & SMOS__FLOW_TWO_SIDED) && f->end[!from].packets) f->flags |= SMOS__FLOW_TWO_SIDED;
    count_flow_packet(s, l);
    for (int k = 0; k < l->anomaly_count; k++) smos__anomaly_raise(s, i, l->anomalies[k]);
    if (!(l->flags & SMOS__UNCHECKED)) SMOS__COUNT(s, checksum_checked);
    if (__builtin_expect(f->flags & (SMOS__FLOW_RESET | SMOS__FLOW_ENDED), 0)) {
        SMOS__COUNT(s, drop_reset_flow);
        s->verdict = SMOS__DROP;
    } else if (__builtin_expect(l->flags & SMOS__BAD_CHECKSUM || !readable, 0)) {
        if (readable) SMOS__COUNT(s, bad_checksum);
        if (readable && s->tcp.detail & SMOS_DETAIL_HISTORY) smos__zeek_bad_checksum(&s->arena.cold[i].zeek, s->arena.cold[i].history, from);
        if (fresh) { /* a receiver would not have seen it, but the flow is there */
            smos__raise(s, i, SMOS_CONN_START, from, SMOS_SENDER);
            if (!s->events.dropped) smos__raise(s, i, SMOS_CONN_START, !from, SMOS_RECEIVER);
            f->flags |= SMOS__FLOW_STARTED_RECEIVER;
        }
    } else if (tcp && f->flags & SMOS__FLOW_EDITED && !smos__edit_entry(s, i, l, from)) {
        s->events.dropped = true; /* what its receiver should get cannot be told */
    } else if (tcp) {
        process_tcp(s, i, l, from, fresh);
    } else {
        process_datagram(s, i, from, fresh);
    }
    if (__builtin_expect(s->edits.active || f->flags & SMOS__FLOW_EDITED, 0) && !s->events.dropped) leave_edited(s, i, l, from, came);
    if (s->events.dropped) {
        SMOS__COUNT(s, drop_verdict);
        s->verdict = SMOS__DROP;
    }
    s->events.in_packet = false;
    s->flow = s->shown = SMOS__NO_FLOW;
    if (__builtin_expect(f->flags & SMOS__FLOW_RESET && !(f->flags & SMOS__FLOW_ENDED), 0)) {
        /* A handler reset it: it ends now, and with this packet all of its are dropped until the linger is over. */
        if (s->verdict != SMOS__DROP) SMOS__COUNT(s, drop_reset_flow);
        s->verdict = SMOS__DROP;
        f->end_reason = SMOS_END_RST;
        f->flags |= SMOS__FLOW_ENDED;
        smos__raise_detail(s, i, SMOS_CONN_END, SMOS_CLIENT, SMOS_NO_HOOK, SMOS_END_RST);
        smos__raise_detail(s, i, SMOS_CONN_END, SMOS_SERVER, SMOS_NO_HOOK, SMOS_END_RST);
        s->arena.hot[i].class_ = SMOS__CLASS_RESET;
    }
    smos__flow_commit(f);
    return SMOS__C_packets_flow;
}


static smos__counter_t disposition_of(uint8_t result)
{
    switch (result) {
    case SMOS__WIRE_FRAGMENT: return SMOS__C_packets_fragment;
    case SMOS__WIRE_NOT_IP: return SMOS__C_drop_not_ip;
    case SMOS__WIRE_TRUNCATED: return SMOS__C_drop_truncated;
    case SMOS__WIRE_LINKTYPE: return SMOS__C_drop_linktype;
    default: return SMOS__C_drop_malformed;
    }
}


/* The frame goes no further into the shard, for a reason that is a drop_ counter. An inline port passes it on all the same unless it was told to
 * refuse such frames: whoever bridges two networks carries what he does not understand. */
static smos__counter_t unfollowed(smos_shard_t *s, smos__counter_t why)
{
    if (!s->inline_) return why;
    bool refuse = why == SMOS__C_drop_not_ip ? s->config.refuse & SMOS_REFUSE_NOT_IP
                : why == SMOS__C_drop_malformed || why == SMOS__C_drop_truncated ? s->config.refuse & SMOS_REFUSE_MALFORMED : false;
    if (!refuse) return why - SMOS__C_drop_not_ip + SMOS__C_passed_not_ip;
    s->verdict = SMOS__DROP;
    return why;
}


static bool owns(const smos_shard_t *s, const smos_tuple_t *tuple)
{
    return s->config.workers == 1 || smos__owner(smos__owner_hash(tuple, s->config.owner_seed), s->config.workers) == s->config.worker;
}


/* An ICMP error and the flow it is about, which may belong to another worker than the error itself. It comes before the error's own flow: whoever
 * translates that flow's addresses translates the error too, and where that goes follows from its addresses. */
static void tie_icmp_error(smos_shard_t *s, const smos__frame_t *frame, const smos__layer_t *l)
{
    smos_tuple_t quoted = l->quoted;
    if (l->flags & SMOS__BAD_CHECKSUM || frame->flags & SMOS__FRAME_TIED) return;
    if (s->config.key == 0) quoted.vlan = 0, quoted.tunnel = 0;
    if (frame->flags & SMOS__FRAME_REDIRECTED || owns(s, &quoted)) smos__icmp_error(s, frame, l, &quoted);
}


static const smos__frame_t *as_edited(const smos_shard_t *s, const smos__frame_t *frame) { return s->edits.active ? &s->edits.frame : frame; }


/* Workers hand an ICMP error from one to the next: whoever got it, the owner of the flow that it is about, the owner of its own flow, who counts it and
 * passes it on. True: it is here for the last time, or was dropped here. */
static bool stays(smos_shard_t *s, const smos__frame_t *frame, const smos__layer_t *l)
{
    if (frame->flags & SMOS__FRAME_HANDED) SMOS__COUNT(s, packets_taken_over);
    if (frame->flags & SMOS__FRAME_TIED) return true;
    if (!(frame->flags & SMOS__FRAME_REDIRECTED) && !owns(s, &l->quoted)) return smos__handover_give(s, &l->quoted, frame, 0), false;
    tie_icmp_error(s, frame, l);
    return s->verdict == SMOS__DROP || owns(s, &l->tuple) || (smos__handover_give(s, &l->tuple, as_edited(s, frame), SMOS__FRAME_TIED), false);
}


static void advance_time(smos_shard_t *s, int64_t time_ns)
{
    if (!s->now_ns) {
        s->expire_ns = time_ns;
        smos__timers_shift(&s->timers, time_ns);
    } else if (time_ns - s->now_ns > s->config.max_jump_ns) {
        smos__anomaly_raise(s, SMOS__NO_FLOW, SMOS__ANOMALY_TIME_JUMP);
    }
    s->now_ns = time_ns;
    if (__builtin_expect(s->timers.next_ns <= time_ns, 0)) smos__timers_run(s);
}


/* The usual frame in the usual set-up, one layer of our own, no filter: the same as process_frame, said shorter. */
static inline bool process_plain(smos_shard_t *s, int i)
{
    const smos__frame_t *frame = &s->frames[i];
    smos__decoded_t *d = &s->decoded[i % SMOS__DECODED];
    smos__layer_t *l = &d->layer[0];
    if (d->layers != 1 || d->result != SMOS__WIRE_OK || d->anomaly_count || l->flags & SMOS__ICMP_ERROR || !s->mine[i] || !s->plain || s->events.raw) return false;
    s->nested = false;
    if (frame->time_ns > s->now_ns) advance_time(s, frame->time_ns);
    SMOS__COUNT(s, packets);
    SMOS__ADD(s, bytes, frame->len);
    smos__counter_t how = process_layer(s, frame, l, s->hashes[i], s->hints[i], true);
    s->counters[how == SMOS__C_drop_no_memory ? unfollowed(s, how) : how]++;
    return true;
}


/* Raw sockets see each packet once, before its flow does: the innermost IP packet, or the frame where it holds none that can be read. */
static void raise_raw(smos_shard_t *s, const smos__frame_t *frame, const smos__layer_t *l)
{
    s->frame = frame;
    s->layer = l;
    s->from = SMOS_CLIENT;
    if (l) {
        fill_packet(s);
    } else {
        s->packet = (smos_packet_t){.frame = frame->data, .caplen = frame->caplen, .len = frame->len, .time_ns = frame->time_ns, .number = frame->number};
    }
    smos_call_t call = {.packet = &s->packet, .tuple = l ? &l->tuple : NULL, .time_ns = s->now_ns, .event = SMOS_PKT_IN, .side = SMOS_CLIENT};
    s->events.in_packet = s->in_raw = true;
    s->events.dropped = s->redirected = false;
    smos__events_raise_raw(&s->events, &call, l ? l->ip : NULL, l ? l->ip_len : 0, l ? l->ip_captured : 0);
    s->events.in_packet = s->in_raw = false;
    if (!s->events.dropped) return;
    SMOS__COUNT(s, drop_verdict);
    s->verdict = SMOS__DROP;
}


static void process_frame(smos_shard_t *s, smos__frame_t *frame, smos__decoded_t *d, uint32_t first_hash, uint32_t hint)
{
    smos__counter_t disposition = disposition_of(d->result);
    bool filtered = false;
    uint8_t layers = d->layers;
    s->nested = layers > 1;
    const smos__layer_t *inner = layers ? &d->layer[layers - 1] : NULL;
    if (frame->time_ns > s->now_ns) advance_time(s, frame->time_ns);
    if (s->filter && inner) filtered = !smos__filter_match(s->filter, inner->ip, inner->ip_len, inner->ip_captured);
    bool relayed = s->handover && layers == 1 && inner->flags & SMOS__ICMP_ERROR && !filtered && !d->fragments && !(frame->flags & SMOS__FRAME_COPY);
    bool mine = s->config.workers == 1 || (relayed ? stays(s, frame, inner) : s->handover ? smos__handover_route(s, frame, d)
                                           : inner ? owns(s, &inner->tuple) : smos__owner(d->owner_hash, s->config.workers) == s->config.worker);
    if (relayed && !mine) {
        s->verdict = SMOS__DROP; /* here */
        return;
    }
    if (!mine) layers = d->layers, inner = layers ? &d->layer[layers - 1] : NULL;
    if (s->events.raw && mine && !filtered && (inner || !s->filter) && s->verdict != SMOS__DROP) {
        raise_raw(s, as_edited(s, frame), d->result == SMOS__WIRE_OK ? inner : NULL);
        if (s->redirected && s->verdict != SMOS__DROP) { /* who drops has the last word */
            smos__handover_give(s, &s->redirect, as_edited(s, frame), SMOS__FRAME_REDIRECTED);
            s->verdict = SMOS__DROP; /* here */
            return;
        }
    }
    if (mine) {
        for (int k = 0; k < d->anomaly_count; k++) smos__anomaly_raise(s, SMOS__NO_FLOW, d->anomalies[k]);
        SMOS__COUNT(s, packets);
        SMOS__ADD(s, bytes, frame->len);
    }
    if (s->closed && mine) {
        SMOS__COUNT(s, packets_flow);
        SMOS__COUNT(s, drop_resting);
        s->verdict = SMOS__DROP;
        return;
    }
    if (filtered || (s->filter && !inner)) {
        if (mine) s->counters[unfollowed(s, SMOS__C_drop_filtered)]++;
        else s->verdict = SMOS__DROP;
        return;
    }
    if (s->events.raw && mine && s->verdict == SMOS__DROP) {
        SMOS__COUNT(s, packets_flow); /* a module's business, as drop_verdict is */
        return;
    }
    for (uint8_t k = 0; k < layers; k++) {
        smos__layer_t *l = &d->layer[k];
        bool ours = owns(s, &l->tuple) || relayed || frame->flags & SMOS__FRAME_REDIRECTED;
        if (l->flags & SMOS__ICMP_ERROR && !relayed) tie_icmp_error(s, frame, l);
        if (!ours) continue;
        bool dropped = s->verdict == SMOS__DROP;
        if (s->config.key == 0) l->tuple.vlan = 0, l->tuple.tunnel = 0;
        bool readable = d->result == SMOS__WIRE_OK || k < layers - 1 || l->flags & SMOS__L4_WHOLE;
        smos__counter_t how = dropped ? SMOS__C_packets_flow
                            : layers == 1 && !s->edits.active ? process_layer(s, frame, l, first_hash, hint, readable)
                                          : process_layer(s, as_edited(s, frame), l, smos__table_hash(&s->table, &l->tuple), SMOS__NO_FLOW, readable);
        if (k == layers - 1 && d->result == SMOS__WIRE_OK) disposition = how;
        if (s->verdict == SMOS__DROP) { /* what it carries was dropped with it */
            disposition = how;
            break;
        }
    }
    if (disposition >= SMOS__C_drop_not_ip && disposition <= SMOS__C_drop_no_memory) disposition = unfollowed(s, disposition);
    if (mine && s->datagrams && smos__datagram_waits(frame, d)) {
        SMOS__COUNT(s, packets_joined);
        s->verdict = SMOS__DROP; /* it leaves with the last of them */
    }
    if (mine) s->counters[disposition]++;
    else s->verdict = SMOS__DROP; /* here: its owner passes it on */
}


/* What was said about the frame is done. Packets = what the port forwarded + what was dropped, each under its name. */
static void settle(smos_shard_t *s, smos__frame_t *frame)
{
    if (s->verdict == SMOS__PASS && frame->flags & SMOS__FRAME_WHOLE) {
        smos__datagram_send(s, s->port->ends == 2 ? !frame->end : frame->end, as_edited(s, frame));
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
            if (!process_plain(s, k)) process_frame(s, &s->frames[k], &s->decoded[k % SMOS__DECODED], s->hashes[k], s->hints[k]);
            if (s->inline_) settle(s, &s->frames[k]);
        }
    }
    if (ahead.at) *s->port->ahead = ahead.at;
}
