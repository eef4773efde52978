/* One packet's way through its flow: look up, sender, SENDER events, receiver and streams, RECEIVER events. */
#include "shard/shard.h"
#include "tcp/fast.h"

#define TCP 6
#define UDP 17


/* A SYN that does not belong to the flow its tuple leads to: the port was reused (RFC 9293 3.6.1, RFC 6191). */
static bool begins_another(const smos__flow_t *f, const smos__layer_t *l, int from)
{
    if ((l->tcp_flags & (SMOS__SYN | SMOS__ACK | SMOS__RST)) != SMOS__SYN) return false;
    const smos__endpoint_t *e = &f->end[from];
    if (e->flags & SMOS__EP_BASE && e->isn == l->seq) return false;
    if (f->class_ == SMOS__CLASS_CLOSED || f->class_ == SMOS__CLASS_RESET) return true;
    if (e->flags & SMOS__EP_SYN && !f->end[!from].packets) return true; /* of the other end, which might challenge it, nothing is captured */
    /* Nobody accepted the first SYN: this is another try of its own. */
    return from == SMOS_CLIENT && e->flags & SMOS__EP_SYN && !(f->end[!from].flags & SMOS__EP_SYN) && f->class_ == SMOS__CLASS_EMBRYONIC;
}


static smos__class_t first_class(const smos__layer_t *l)
{
    if (l->tuple.proto == UDP) return SMOS__CLASS_UDP;
    if (l->tuple.proto != TCP) return SMOS__CLASS_ICMP;
    return l->tcp_flags & SMOS__SYN ? SMOS__CLASS_EMBRYONIC : SMOS__CLASS_ESTABLISHED;
}


static inline void count_flow_packet(smos_shard_t *s, const smos__layer_t *l)
{
    int kind = __builtin_expect(l->tuple.proto == TCP, 1) ? 0 : l->tuple.proto == UDP ? 1 : l->tuple.proto == 1 || l->tuple.proto == 58 ? 2 : 3;
    s->counters[SMOS__C_flow_packets_tcp + kind]++;
    s->counters[SMOS__C_flow_bytes_tcp + kind] += l->ip_len;
}


static void tcp_timeout_class(smos_shard_t *s, uint32_t i, uint32_t facts)
{
    smos__flow_t *f = &s->arena.hot[i];
    if (__builtin_expect(facts & SMOS__TCP_REVIVED, 0)) {
        s->arena.hot[i].class_ = SMOS__CLASS_EMBRYONIC;
        f->end_reason = 255;
    }
    if (__builtin_expect(facts & SMOS__TCP_RESET, 0)) {
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


/* Good until the packet's next event: a handler may change the flow's set. */
static inline smos__tcp_t *under_hand(smos_shard_t *s, uint32_t i)
{
    smos__tcp_t *t = &s->under;
    t->flow = &s->arena.hot[i];
    t->cold = &s->arena.cold[i];
    t->conn = &s->arena.conn[i];
    t->options = &smos__set_of(s, t->flow)->options;
    t->now_ns = s->now_ns;
    return t;
}


/* Data that was dropped on its way never was sent, as far as its receiver is concerned: when it comes again it is new, and can be edited. */
static void unsend(smos_shard_t *s, const smos__layer_t *l, smos__endpoint_t *sender)
{
    if (l->payload_len && !(l->tcp_flags & (SMOS__SYN | SMOS__FIN | SMOS__RST))) sender->snd_nxt = s->sent_before;
}


static inline void note_history(smos_shard_t *s, uint32_t i, const smos__layer_t *l, int from)
{
    smos__flow_conn_t *c = &s->arena.conn[i];
    smos__zeek_segment_t z = {l->seq, l->ack, l->payload_len, l->window, l->tcp_flags, (uint8_t)from};
    smos__zeek_segment(&c->zeek, c->history, &z);
}


/* smos__raise and smos__raise_detail of a flow whose set is at hand; gives the set it has afterwards, as a handler may change that. */
static inline smos__set_t *tell(smos_shard_t *s, const smos__flow_t *f, smos__set_t *set, smos_event_t event, int side, int hook)
{
    if (__builtin_expect(!smos__raised_in(s, set, event, side, hook), 1) || s->events.dropped) return set;
    smos__raise_wanted(s, set, event, SMOS__WHAT(event, side, hook));
    return smos__set_of(s, f);
}


static inline smos__set_t *tell_state(smos_shard_t *s, uint32_t i, const smos__flow_t *f, smos__set_t *set, int side, int hook)
{
    if (__builtin_expect(!smos__raised_in(s, set, SMOS_STATE_CHANGE, side, hook), 1)) return set;
    smos__raise_detail_wanted(s, set, i, SMOS__WHAT(SMOS_STATE_CHANGE, side, hook), f->end[side].state);
    return smos__set_of(s, f);
}


/* SENDER and RECEIVER steps of one TCP segment. */
static inline void process_tcp(smos_shard_t *s, uint32_t i, smos__flow_t *f, const smos__layer_t *l, int from, bool fresh)
{
    const int to = from ^ 1;
    smos__endpoint_t *e = &f->end[from];
    s->sent_before = e->packets > 1 ? e->snd_nxt : l->seq;
    if (s->tcp.detail & SMOS_DETAIL_HISTORY) note_history(s, i, l, from);
    smos__tcp_t *t = under_hand(s, i);
    uint32_t facts = smos__tcp_ordinary(t, l, from);
    const bool ordinary = __builtin_expect(facts, SMOS__TCP_VALID);
    if (!ordinary) {
        if (l->tcp_flags & SMOS__SYN) smos__reuse_note(s, i, l, from);
        facts = smos__tcp_sender(t, l, from);
    }
    if (__builtin_expect(s->events.dropped, 0)) return unsend(s, l, e); /* at an ANOMALY */
    if (__builtin_expect(f->flags & SMOS__FLOW_BLOCKED && facts & SMOS__TCP_REXMIT, 0)) s->events.dropped = true;
    smos__set_t *set = tell(s, f, smos__set_of(s, f), SMOS_PKT_IN, from, SMOS_SENDER);
    if (__builtin_expect(fresh, 0) && !s->events.dropped) set = tell(s, f, set, SMOS_CONN_START, from, SMOS_SENDER);
    if (__builtin_expect(facts & SMOS__TCP_REXMIT, 0) && !s->events.dropped) set = tell(s, f, set, SMOS_REXMIT, from, SMOS_SENDER);
    if (facts & SMOS__TCP_SENDER_STATE && !s->events.dropped) set = tell_state(s, i, f, set, from, SMOS_SENDER);
    if (__builtin_expect(s->events.dropped, 0)) return unsend(s, l, e);
    if (__builtin_expect(!(f->flags & SMOS__FLOW_STARTED_RECEIVER), 0)) {
        f->flags |= SMOS__FLOW_STARTED_RECEIVER;
        set = tell(s, f, set, SMOS_CONN_START, to, SMOS_RECEIVER);
    }
    if (__builtin_expect(facts & SMOS__TCP_REXMIT, 0)) set = tell(s, f, set, SMOS_REXMIT, to, SMOS_RECEIVER); /* before its bytes are merged */
    t->options = &set->options;
    facts = ordinary ? smos__tcp_ordinary_receiver(t, l, from, facts) : smos__tcp_receiver(t, l, from, facts);
    set = tell(s, f, smos__set_of(s, f), SMOS_PKT_IN, to, SMOS_RECEIVER);
    if (facts & SMOS__TCP_SETUP) set = tell(s, f, set, SMOS_CONN_SETUP, to, SMOS_RECEIVER);
    if (facts & SMOS__TCP_RECEIVER_STATE) tell_state(s, i, f, set, to, SMOS_RECEIVER);
    if (f->class_ != SMOS__CLASS_ESTABLISHED || facts & (SMOS__TCP_CLOSED | SMOS__TCP_RESET) || f->flags & SMOS__FLOW_QUEUED) tcp_timeout_class(s, i, facts);
}


static void process_datagram(smos_shard_t *s, uint32_t i, int from, bool fresh)
{
    smos__flow_t *f = &s->arena.hot[i];
    smos__flow_conn_t *c = &s->arena.conn[i];
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


static smos__counter_t orphan(smos_shard_t *s, const smos__frame_t *frame, smos__layer_t *l)
{
    s->frame = frame;
    s->layer = l;
    l->from = SMOS_CLIENT;
    smos__show_frame(s);
    s->counters[SMOS__C_event_orphan]++;
    smos_call_t call = {.packet = &l->packet, .tuple = &l->tuple, .time_ns = s->now_ns, .event = SMOS_ORPHAN, .side = SMOS_CLIENT};
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


static __attribute__((noinline)) void leave_changed(smos_shard_t *s, smos__layer_t *l, uint32_t i, int from, uint32_t came)
{
    smos__flow_t *f = &s->arena.hot[i];
    if ((s->edits.active || f->flags & SMOS__FLOW_EDITED) && !s->events.dropped) leave_edited(s, i, l, from, came);
    if (s->events.dropped) {
        SMOS__COUNT(s, drop_verdict);
        s->verdict = SMOS__DROP;
    }
    smos__leave_packet(s);
    if (f->flags & SMOS__FLOW_RESET && !(f->flags & SMOS__FLOW_ENDED)) {
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
}


/* Its handlers were called: what they did to the packet and its flow comes true. `came`: bytes of payload that it came with. */
static inline void leave(smos_shard_t *s, smos__layer_t *l, uint32_t i, smos__flow_t *f, int from, uint32_t came)
{
    if (__builtin_expect(s->edits.active | s->events.dropped | (f->flags & (SMOS__FLOW_EDITED | SMOS__FLOW_RESET)), 0)) {
        leave_changed(s, l, i, from, came);
        return;
    }
    smos__leave_packet(s);
    smos__flow_commit(f);
}


static inline void count_packet(smos_shard_t *s, const smos__frame_t *frame, const smos__layer_t *l, smos__flow_t *f, smos__endpoint_t *e)
{
    e->packets++;
    e->payload_bytes += l->payload_len;
    e->wire_bytes += frame->len;
    f->last_ns = s->now_ns; /* not the frame's own time, which may lie in the past */
    SMOS__ADD(s, checksum_checked, !(l->flags & SMOS__UNCHECKED));
}


/* What flow records tell of a plain segment. */
static __attribute__((noinline)) void note_plain(smos_shard_t *s, uint32_t i, const smos__layer_t *l, int from)
{
    if (s->tcp.detail & SMOS_DETAIL_HISTORY) note_history(s, i, l, from);
    if (s->tcp.detail & SMOS_DETAIL_RTT) smos__tcp_rtt(under_hand(s, i), l, from);
}


/* The payload of a plain segment. */
static inline void pass_plain(smos_shard_t *s, uint32_t i, const smos__flow_t *f, smos__endpoint_t *e, const smos__layer_t *l, int from)
{
    const uint32_t length = l->payload_len;
    if (__builtin_expect(l->payload_captured != length || s->tcp.depth || e->flags & SMOS__EP_STOPPED, 0)) {
        smos__stream_segment(under_hand(s, i), from, l->seq, l->payload, l->payload_captured, length);
        return;
    }
    uint64_t offset = e->offset; /* smos__stream_segment, said shorter */
    e->offset += length;
    e->rcv_nxt += length;
    if (f->flags & SMOS__FLOW_STREAM_OF(from)) smos__sink_data(s, from ^ 1, l->payload, length, offset);
}


bool smos__process_plain(smos_shard_t *s, const smos__frame_t *frame, smos__layer_t *l, uint32_t i)
{
    const uint16_t open = SMOS__FLOW_TWO_SIDED | SMOS__FLOW_STARTED_RECEIVER, either = SMOS__FLOW_STREAMS | SMOS__FLOW_SETUP | SMOS__FLOW_EXISTING | SMOS__FLOW_REFUSED;
    smos__flow_t *f = &s->arena.hot[i];
    int from;
    if (f->class_ != SMOS__CLASS_ESTABLISHED || (f->flags & ~either) != open || f->epoch != s->events.epoch) return false;
    if (!smos__tuple_match(&f->tuple, &l->tuple, &from) || l->flags & SMOS__BAD_CHECKSUM || l->anomaly_count || smos__flow_expired(s, f, s->now_ns)) return false;
    smos__endpoint_t *e = &f->end[from], *p = &f->end[from ^ 1];
    __asm__("" : "+r"(e), "+r"(p)); /* as pointers: worked out again for each field they would take a quarter of the steps */
    if (!smos__tcp_fast(e, p, l, s->now_ns)) return false;
    smos__flow_begin(f);
    count_packet(s, frame, l, f, e);
    SMOS__COUNT(s, flow_packets_tcp);
    SMOS__ADD(s, flow_bytes_tcp, l->ip_len);
    const uint32_t came = l->payload_len;
    smos__take_packet(s, i, f, frame, l, from);
    s->sent_before = l->seq;
    if (__builtin_expect(s->tcp.detail & (SMOS_DETAIL_HISTORY | SMOS_DETAIL_RTT), 0)) note_plain(s, i, l, from);
    smos__set_t *set = smos__raised(s, f, SMOS_PKT_IN, from, SMOS_SENDER);
    if (__builtin_expect(set != NULL, 0)) smos__raise_wanted(s, set, SMOS_PKT_IN, SMOS__WHAT(SMOS_PKT_IN, from, SMOS_SENDER)); /* the packet's first event: nobody dropped it yet */
    if (__builtin_expect(s->events.dropped, 0)) {
        unsend(s, l, e);
    } else {
        if (came) pass_plain(s, i, f, e, l, from);
        smos__raise(s, i, SMOS_PKT_IN, from ^ 1, SMOS_RECEIVER);
    }
    leave(s, l, i, f, from, came);
    return true;
}


smos__counter_t smos__process_layer(smos_shard_t *s, const smos__frame_t *frame, smos__layer_t *l, uint32_t hash, uint32_t hint, bool readable)
{
    int from = SMOS_CLIENT;
    bool fresh = false;
    bool tcp = __builtin_expect(l->tuple.proto == TCP, 1);
    const smos__late_syn_t *earlier = NULL;
    uint32_t i = hint;
    /* The hint is from before the burst: good only if that flow is still there and the right one. */
    if (__builtin_expect(i == SMOS__NO_FLOW || s->arena.hot[i].class_ == SMOS__CLASS_FREE || !smos__tuple_match(&s->arena.hot[i].tuple, &l->tuple, &from), 0))
        i = smos__table_find(&s->table, s->arena.hot, hash, &l->tuple, &from);
    if (__builtin_expect(i == SMOS__NO_FLOW && s->edits.aliases.count, 0)) i = smos__alias_find(&s->edits.aliases, &l->tuple, hash, &from);
    if (__builtin_expect(i != SMOS__NO_FLOW, 1)) {
        smos__flow_t *f = &s->arena.hot[i];
        if (__builtin_expect(smos__flow_expired(s, f, s->now_ns), 0)) {
            smos__flow_end(s, i, SMOS_END_IDLE, true);
            i = SMOS__NO_FLOW;
        } else if (__builtin_expect(tcp && ((l->tcp_flags & SMOS__SYN && begins_another(f, l, from)) || (f->flags & SMOS__FLOW_SYN_AGAIN && readable && (earlier = smos__reuse_answered(s, i, l, from)))), 0)) {
            smos__flow_end(s, i, SMOS_END_IDLE, true);
            i = SMOS__NO_FLOW;
        }
    }
    if (__builtin_expect(i == SMOS__NO_FLOW, 0)) {
        bool syn = tcp && l->tcp_flags & SMOS__SYN && !(l->tcp_flags & SMOS__RST);
        if (tcp && !syn && !earlier && s->config.midstream == 1) return orphan(s, frame, l);
        from = earlier || (tcp && (l->tcp_flags & (SMOS__SYN | SMOS__ACK)) == (SMOS__SYN | SMOS__ACK)) ? SMOS_SERVER : SMOS_CLIENT;
        i = smos__flow_make(s, l, hash, frame->time_ns, from, earlier ? SMOS__CLASS_EMBRYONIC : first_class(l));
        if (i == SMOS__NO_FLOW) return SMOS__C_drop_no_memory;
        fresh = true;
        if (earlier) smos__reuse_begin(s, i, earlier);
        if (tcp && !earlier && !(syn && from == SMOS_CLIENT)) {
            s->arena.hot[i].flags |= SMOS__FLOW_MIDSTREAM;
            SMOS__COUNT(s, flows_midstream);
        }
    }
    smos__flow_t *f = &s->arena.hot[i];
    smos__flow_begin(f);
    if (__builtin_expect(f->epoch != s->events.epoch, 0)) smos__events_refresh(&s->events, i, l->ip, l->ip_len, l->ip_captured);
    smos__take_packet(s, i, f, frame, l, from);
    const uint32_t came = l->payload_len;
    count_packet(s, frame, l, f, &f->end[from]);
    if (__builtin_expect(s->can_send, 0) && f->end[from].packets == 1) smos__edit_note_link(s, i, frame, l, from);
    if (!(f->flags & SMOS__FLOW_TWO_SIDED) && f->end[!from].packets) f->flags |= SMOS__FLOW_TWO_SIDED;
    count_flow_packet(s, l);
    for (int k = 0; __builtin_expect(k < l->anomaly_count, 0); k++) smos__anomaly_raise(s, i, l->anomalies[k]);
    if (__builtin_expect(f->flags & (SMOS__FLOW_RESET | SMOS__FLOW_ENDED), 0)) {
        SMOS__COUNT(s, drop_reset_flow);
        s->verdict = SMOS__DROP;
    } else if (__builtin_expect(l->flags & SMOS__BAD_CHECKSUM || !readable, 0)) {
        if (readable) SMOS__COUNT(s, bad_checksum);
        if (readable && s->tcp.detail & SMOS_DETAIL_HISTORY) smos__zeek_bad_checksum(&s->arena.conn[i].zeek, s->arena.conn[i].history, from);
        if (fresh) { /* a receiver would not have seen it, but the flow is there */
            smos__raise(s, i, SMOS_CONN_START, from, SMOS_SENDER);
            if (!s->events.dropped) smos__raise(s, i, SMOS_CONN_START, !from, SMOS_RECEIVER);
            f->flags |= SMOS__FLOW_STARTED_RECEIVER;
        }
    } else if (__builtin_expect(tcp && f->flags & SMOS__FLOW_EDITED, 0) && !smos__edit_entry(s, i, l, from)) {
        s->events.dropped = true; /* what its receiver should get cannot be told */
    } else if (tcp) {
        process_tcp(s, i, f, l, from, fresh);
    } else {
        process_datagram(s, i, from, fresh);
    }
    leave(s, l, i, f, from, came);
    return SMOS__C_packets_flow;
}
