#include "tcp/endpoint.h"

#define PAWS (uint32_t)(INT64_C(24) * 24 * 3600 * 1000000000 >> SMOS__TS_SHIFT) /* RFC 7323 5.5 */


/* `right` was the window's right edge before, if that is known. What a segment's window field means once both ends' scaling is known (RFC 7323 2.2: only if both sent the option, never in a SYN). */
static inline __attribute__((always_inline)) void take_window(smos__tcp_t *t, smos__endpoint_t *e, const smos__endpoint_t *p, const smos__layer_t *l, int from, bool known, uint32_t right)
{
    const uint16_t both = e->flags & p->flags;
    uint16_t flags = e->flags | SMOS__EP_WINDOW;
    uint32_t window = l->window;
    if (!(l->tcp_flags & SMOS__SYN)) {
        if (both & SMOS__EP_SYN && both & SMOS__EP_WSCALE) window <<= e->wscale;
        if (!(both & SMOS__EP_SYN)) flags &= (uint16_t)~SMOS__EP_WINDOW; /* the scale is unknown */
    }
    /* RFC 9293 3.8.6: the right edge should not move left; scaling rounds it down by less than one unit. */
    if (known && flags & SMOS__EP_WINDOW && l->tcp_flags & SMOS__ACK && smos__seq_gt(right, l->ack + window + (e->wscale <= 14 ? 1u << e->wscale : 1))) smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_WINDOW_SHRUNK);
    if (__builtin_expect(!window != !!(flags & SMOS__EP_ZERO_WINDOW), 0)) {
        flags ^= SMOS__EP_ZERO_WINDOW;
        if (t->config->detail & SMOS_DETAIL_RTT) {
            uint32_t now_ms = (uint32_t)((t->now_ns - t->cold->start_ns) / 1000000);
            t->cold->end[from].zero_ms += window ? now_ms : -now_ms;
        }
    }
    const uint16_t told = SMOS__EP_WINDOW | SMOS__EP_ZERO_WINDOW;
    e->flags = (uint16_t)((e->flags & ~told) | (flags & told)); /* whoever heard of the anomaly may have changed others */
    e->window = window;
}


/* Were any of these bytes seen before? Only asked for segments below snd_nxt. */
static bool seen_before(const smos__tcp_t *t, int from, uint32_t seq, uint32_t length)
{
    const smos__endpoint_t *e = &t->flow->end[from];
    if (smos__place(e, seq) < 0) { /* what lies before the stream's first byte was not seen */
        uint32_t before = e->isn + 1 - seq;
        if (length <= before) return false;
        seq += before;
        length -= before;
    }
    if (smos__seq_lt(seq, e->rcv_nxt)) return true;
    uint64_t offset = e->offset + (seq - e->rcv_nxt);
    return smos__assembler_next(&t->cold->end[from].assembler, t->pool, offset) < offset + length;
}


/* The acknowledgement field, as the peer's endpoint e sent it. False: the segment is not acceptable. */
static inline __attribute__((always_inline)) bool take_ack(smos__tcp_t *t, const smos__endpoint_t *e, smos__endpoint_t *p, const smos__layer_t *l, int from)
{
    if (!(p->flags & SMOS__EP_BASE)) {
        /* The other end was not heard yet. If this one's SYN was, its first ACK names the other's ISN + 1. */
        if (e->flags & SMOS__EP_SYN && !(l->tcp_flags & SMOS__SYN)) smos__set_base(p, l->ack);
    } else if (!(p->flags & SMOS__EP_ACKED) && l->ack != p->isn + 1 && !(l->tcp_flags & SMOS__SYN) && p->flags & SMOS__EP_SYN && t->cold->end[!from].marks & SMOS__MARK_ALTERNATE_ISN) {
        /* Several SYN/ACKs went by: the acknowledged one is the connection's. */
        t->cold->end[!from].marks &= (uint8_t)~SMOS__MARK_ALTERNATE_ISN;
        if (p->snd_nxt == p->isn + 1 && !p->offset) smos__tcp_rebase(t, !from, l->ack);
    }
    if (p->flags & SMOS__EP_BASE) {
        if (smos__seq_gt(l->ack, p->snd_nxt)) {
            if (l->ack - p->snd_nxt > SMOS__MAX_WINDOW) return smos__tcp_notice_ack(t, l, from, SMOS__ANOMALY_TCP_INVALID_ACK), false;
            smos__tcp_notice_ack(t, l, from, SMOS__ANOMALY_TCP_ACK_UNSEEN);
        } else if (p->flags & SMOS__EP_SYN && smos__place(p, l->ack) < 0) {
            return smos__tcp_notice_ack(t, l, from, SMOS__ANOMALY_TCP_OLD_ACK), false;
        }
    }
    if (!(p->flags & SMOS__EP_ACKED) || smos__seq_gt(l->ack, p->snd_una)) {
        p->snd_una = l->ack;
        p->flags |= SMOS__EP_ACKED;
        if (p->flags & SMOS__EP_RTT) smos__tcp_rtt_end(t, !from);
        /* A FIN that was received lies at or below rcv_nxt: mostly this tells, and the cold record need not be looked at. */
        if (p->flags & SMOS__EP_FIN && ((p->flags & SMOS__EP_FIN_RECEIVED && smos__seq_gt(l->ack, p->rcv_nxt)) || smos__seq_gt(l->ack, t->cold->end[!from].fin_seq)))
            p->flags |= SMOS__EP_FIN_ACKED;
    }
    return true;
}


/* PAWS (RFC 7323 5): a timestamp older than the last at the left edge, unless that is more than 24 days old. By one tick it may be older, as for
 * Linux (tcp_paws_check): what a receiver took and we refused would be a hole. */
static bool timestamp_old(const smos__tcp_t *t, const smos__layer_t *l, const smos__endpoint_t *e)
{
    if (!(e->flags & SMOS__EP_TIMESTAMPS) || (int32_t)(l->tsval - e->ts_recent) >= -1) return false;
    return smos__ts_clock(t->now_ns) - e->ts_time < PAWS;
}


/* RFC 7323 4.3: of a segment that covers the left edge. One that lies before it is outside the window, which comes first (5.3, R2): when old
 * data is sent again, late segments of its time are still good. The receiver may know more than its acknowledgements have told: then what counts
 * is what it must have received. */
static void take_timestamp(const smos__tcp_t *t, const smos__layer_t *l, smos__endpoint_t *e)
{
    if (e->flags & SMOS__EP_TIMESTAMPS) {
        uint32_t acked = e->flags & SMOS__EP_ACKED ? e->snd_una : e->rcv_nxt, edge = smos__seq_gt(acked, e->rcv_nxt) ? acked : e->rcv_nxt;
        if (smos__seq_gt(l->seq, acked) || (l->seq != edge && smos__seq_leq(l->seq + l->payload_len, edge))) return;
        if ((int32_t)(l->tsval - e->ts_recent) < 0 && smos__ts_clock(t->now_ns) - e->ts_time < PAWS) return;
    }
    e->ts_recent = l->tsval;
    e->ts_time = smos__ts_clock(t->now_ns);
    e->flags |= SMOS__EP_TIMESTAMPS;
}


static bool in_window(const smos__endpoint_t *e, const smos__endpoint_t *p, const smos__layer_t *l)
{
    uint32_t left = e->flags & SMOS__EP_ACKED && smos__seq_gt(e->snd_una, e->rcv_nxt) ? e->snd_una : e->rcv_nxt;
    if (!(p->flags & SMOS__EP_WINDOW) || !(e->flags & SMOS__EP_ACKED)) return smos__seq_leq(l->seq, left) || l->seq - left < SMOS__MAX_WINDOW;
    /* Acknowledgements and window updates may have been lost to the capture: some slack, so that real data is not refused. */
    return smos__seq_leq(l->seq, left + smos__window_slack(p->window));
}


static void fin_sent(smos__tcp_t *t, const smos__layer_t *l, int from, uint32_t *facts)
{
    smos__endpoint_t *e = &t->flow->end[from];
    uint32_t fin = l->seq + l->payload_len;
    if (e->flags & SMOS__EP_FIN) {
        if (fin != t->cold->end[from].fin_seq)
            smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_FIN_MOVED);
        else
            *facts |= SMOS__TCP_REXMIT;
        return;
    }
    e->flags |= SMOS__EP_FIN;
    t->cold->end[from].fin_seq = fin;
    if (e->state == SMOS_TCP_CLOSE_WAIT) {
        /* Acknowledging the peer's FIN or not tells a passive close from a simultaneous one. */
        const smos__endpoint_t *p = &t->flow->end[!from];
        smos__set_state(e, p->flags & SMOS__EP_FIN_ACKED ? SMOS_TCP_LAST_ACK : SMOS_TCP_CLOSING, facts, SMOS__TCP_SENDER_STATE);
    } else if (e->state <= SMOS_TCP_ESTABLISHED) {
        smos__set_state(e, SMOS_TCP_FIN_WAIT_1, facts, SMOS__TCP_SENDER_STATE);
    }
}


uint32_t smos__tcp_sender(smos__tcp_t *t, const smos__layer_t *l, int from)
{
    smos__endpoint_t *e = &t->flow->end[from], *p = &t->flow->end[from ^ 1];
    uint8_t flags = l->tcp_flags;
    uint32_t facts = 0;
    if (t->config->detail & SMOS_DETAIL_ANOMALIES) smos__tcp_notice(t, l, from);
    if (__builtin_expect(flags & SMOS__RST, 0)) {
        smos__anomaly_t why;
        if (flags & SMOS__SYN) smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_SYN_RST);
        if (l->payload_len) smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_RST_DATA);
        if (!((e->flags | p->flags) & (SMOS__EP_BASE | SMOS__EP_ACKED | SMOS__EP_RST))) smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_RST_BUT_NO_SESSION);
        if (!smos__tcp_reset_valid(t, l, from, &why)) return smos__tcp_anomaly(t, why), facts;
        e->flags |= SMOS__EP_RST;
        facts = SMOS__TCP_VALID | SMOS__TCP_RESET;
        smos__set_state(e, SMOS_TCP_CLOSED, &facts, SMOS__TCP_SENDER_STATE);
        return facts;
    }
    if (__builtin_expect(flags & SMOS__SYN, 0)) {
        smos__tcp_syn(t, l, from, &facts);
        if (!(facts & SMOS__TCP_VALID)) return facts;
        if (flags & SMOS__ACK && !take_ack(t, e, p, l, from)) return facts & ~(uint32_t)SMOS__TCP_VALID;
        if (l->flags & SMOS__HAS_TIMESTAMP) take_timestamp(t, l, e);
        take_window(t, e, p, l, from, false, 0);
        return facts;
    }
    if (!(flags & SMOS__ACK)) {
        smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_NO_FLAGS); /* RFC 9293 3.10.7.4: dropped by the receiver; as a stream it still may be all there is */
    }
    if (!(e->flags & SMOS__EP_BASE)) {
        if (flags & SMOS__FIN && !(p->flags & SMOS__EP_BASE)) smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_FIN_BUT_NO_SESSION);
        smos__set_base(e, l->seq);
    }
    if (l->flags & SMOS__HAS_TIMESTAMP) {
        if (timestamp_old(t, l, e)) {
            smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_PAWS);
            return smos__refused_keep(t, l, from), facts;
        }
        take_timestamp(t, l, e);
    }
    if ((l->payload_len || flags & SMOS__FIN) && !in_window(e, p, l)) {
        smos__tcp_notice_outside(t, l, from);
        return smos__refused_keep(t, l, from), l->payload_len ? facts | SMOS__TCP_OUTSIDE : facts;
    }
    if (flags & SMOS__ACK) {
        bool known = e->flags & SMOS__EP_WINDOW && p->flags & SMOS__EP_ACKED;
        uint32_t right = p->snd_una + e->window;
        bool late = p->flags & SMOS__EP_ACKED && smos__seq_lt(l->ack, p->snd_una); /* reordered: its window is of the past too */
        if (!take_ack(t, e, p, l, from)) return smos__refused_keep(t, l, from), facts;
        if (__builtin_expect(l->flags & SMOS__HAS_SACK, 0)) smos__tcp_sack(t, l, from);
        if (!late) take_window(t, e, p, l, from, known, right);
    }
    if (e->flags & SMOS__EP_FIN && l->payload_len && smos__seq_geq(l->seq, t->cold->end[from].fin_seq)) {
        smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_DATA_AFTER_FIN);
        return facts;
    }
    facts |= SMOS__TCP_VALID;
    if (__builtin_expect(e->flags & SMOS__EP_SYN_DATA, 0) && l->payload_len) {
        /* No SYN/ACK was seen: the sender itself tells whether it has to say it again. */
        bool accepted = l->seq != e->isn + 1;
        if (!accepted) smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_SYN_DATA_IGNORED);
        smos__stream_syn_data(t, from, accepted);
    }
    uint32_t end = l->seq + l->payload_len;
    if (l->payload_len) {
        if (p->flags & SMOS__EP_ZERO_WINDOW && l->payload_len > 1 && l->seq == e->snd_nxt) smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_ZERO_WINDOW_DATA);
        if (e->flags & SMOS__EP_RST || p->flags & SMOS__EP_RST) smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_DATA_AFTER_RST);
        if (smos__seq_lt(l->seq, e->snd_nxt)) {
            if (smos__place(e, l->seq) < 0)
                smos__tcp_anomaly(t, e->flags & SMOS__EP_SYN && l->payload_len <= 1 ? SMOS__ANOMALY_TCP_KEEPALIVE_DATA : SMOS__ANOMALY_TCP_BEFORE_BASE);
            if (l->payload_len == 1 && end == e->snd_nxt && e->flags & SMOS__EP_ACKED && smos__seq_geq(e->snd_una, end)) {
                smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_KEEPALIVE_DATA);
            } else if (seen_before(t, from, l->seq, l->payload_len)) {
                facts |= SMOS__TCP_REXMIT;
                if (e->flags & SMOS__EP_ACKED && smos__seq_geq(e->snd_una, end)) smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_SPURIOUS_REXMIT);
                t->cold->end[from].retransmits++;
                e->flags &= (uint16_t)~SMOS__EP_RTT;
            } else if (smos__tcp_lost(t, from, l->seq)) {
                t->cold->end[from].retransmits++; /* of what was lost before it came here */
            } else {
                t->cold->end[from].out_of_order++;
            }
        } else {
            smos__tcp_rtt_begin(t, from, end);
        }
    }
    if (smos__seq_gt(end, e->snd_nxt)) e->snd_nxt = end;
    if (__builtin_expect(flags & SMOS__FIN, 0)) {
        if (!(e->flags & SMOS__EP_FIN) && e->flags & SMOS__EP_ACKED && smos__seq_lt(end + 1, e->snd_una)) {
            smos__tcp_notice_outside(t, l, from); /* the peer has more than it would leave: not this sender's, or of another connection */
        } else {
            fin_sent(t, l, from, &facts);
            if (smos__seq_gt(end + 1, e->snd_nxt)) e->snd_nxt = end + 1;
        }
    }
    /* Heard in the middle, or of a handshake whose other half the capture does not have. */
    if (e->state <= SMOS_TCP_SYN_SENT) smos__set_state(e, SMOS_TCP_ESTABLISHED, &facts, SMOS__TCP_SENDER_STATE);
    return facts;
}


static void fin_received(smos__tcp_t *t, int from, uint32_t *facts)
{
    smos__endpoint_t *e = &t->flow->end[from], *p = &t->flow->end[!from];
    if (!(e->flags & SMOS__EP_FIN) || e->flags & SMOS__EP_FIN_RECEIVED || smos__seq_lt(e->rcv_nxt, t->cold->end[from].fin_seq)) return;
    e->flags |= SMOS__EP_FIN_RECEIVED;
    switch (p->state) {
    case SMOS_TCP_FIN_WAIT_1:
        smos__set_state(p, p->flags & SMOS__EP_FIN_ACKED ? SMOS_TCP_TIME_WAIT : SMOS_TCP_CLOSING, facts, SMOS__TCP_RECEIVER_STATE);
        break;
    case SMOS_TCP_FIN_WAIT_2:
        smos__set_state(p, SMOS_TCP_TIME_WAIT, facts, SMOS__TCP_RECEIVER_STATE);
        break;
    case SMOS_TCP_CLOSED:
        if (p->flags & SMOS__EP_RST || e->flags & SMOS__EP_RST) break;
        /* fall through */
    case SMOS_TCP_SYN_SENT:
    case SMOS_TCP_SYN_RECEIVED:
    case SMOS_TCP_ESTABLISHED:
        smos__set_state(p, SMOS_TCP_CLOSE_WAIT, facts, SMOS__TCP_RECEIVER_STATE);
        break;
    default:
        break;
    }
}


/* Urgent data (RFC 6093): the pointer names the byte after the urgent one. In-line it is data like any other; out-of-band, as BSD
 * sockets have it, that one byte is not in the stream; or the whole segment is refused. */
static void urgent_segment(smos__tcp_t *t, const smos__layer_t *l, int from, uint32_t seq)
{
    smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_URGENT);
    uint32_t at = l->urgent - 1u; /* from the start of the payload */
    if (t->config->urgent_policy == 2) {
        t->flow->end[from].snd_nxt = t->flow->end[from].rcv_nxt; /* it has to be said again */
        return;
    }
    if (t->config->urgent_policy == 0 || !l->urgent || at >= l->payload_len) {
        smos__stream_segment(t, from, seq, l->payload, l->payload_captured, l->payload_len);
        return;
    }
    uint32_t head = at < l->payload_captured ? at : l->payload_captured;
    if (at) smos__stream_segment(t, from, seq, l->payload, head, at);
    smos__stream_omit(t, from, seq + at);
    if (at + 1 < l->payload_len)
        smos__stream_segment(t, from, seq + at + 1, l->payload_captured > at + 1 ? l->payload + at + 1 : NULL, l->payload_captured > at + 1 ? l->payload_captured - at - 1 : 0,
                             l->payload_len - at - 1);
}


uint32_t smos__tcp_receiver(smos__tcp_t *t, const smos__layer_t *l, int from, uint32_t facts)
{
    smos__endpoint_t *e = &t->flow->end[from], *p = &t->flow->end[from ^ 1];
    uint8_t flags = l->tcp_flags;
    if (__builtin_expect(!(facts & SMOS__TCP_VALID), 0)) {
        if (facts & SMOS__TCP_OUTSIDE) t->sink->error(t->context, !from, SMOS_ERR_WINDOW);
        return facts;
    }
    if (__builtin_expect(flags & SMOS__RST, 0)) {
        smos__set_state(p, SMOS_TCP_CLOSED, &facts, SMOS__TCP_RECEIVER_STATE);
        return facts;
    }
    uint32_t seq = l->seq;
    if (__builtin_expect(flags & SMOS__SYN, 0)) {
        seq++;
        if (!(flags & SMOS__ACK)) {
            if (p->state == SMOS_TCP_CLOSED || p->state == SMOS_TCP_SYN_SENT) smos__set_state(p, SMOS_TCP_SYN_RECEIVED, &facts, SMOS__TCP_RECEIVER_STATE);
        }
        if (!(flags & SMOS__ACK) && l->payload_len && t->flow->flags & SMOS__FLOW_STREAM_OF(from) && !smos__synchronized(p->state)) {
            if (!(e->flags & SMOS__EP_TFO)) smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_SYN_DATA);
            /* Whether the peer takes it is known from its SYN/ACK (RFC 7413 4.1.2): it waits. */
            smos__assembler_clear(&t->cold->end[from].assembler, t->pool);
            smos__insert_result_t r;
            if (e->flags & SMOS__EP_STOPPED) return facts;
            smos__assembler_insert(&t->cold->end[from].assembler, t->pool, 0, l->payload, l->payload_captured, SMOS__OVERLAP_FIRST,
                                   t->config->flow_buffer, t->config->flow_segments, &r);
            if (t->cold->end[from].assembler.bytes) e->flags |= SMOS__EP_SYN_DATA;
            return facts;
        }
    }
    if (flags & SMOS__ACK) {
        if (__builtin_expect(p->state != SMOS_TCP_ESTABLISHED, 0)) {
            if (p->state == SMOS_TCP_CLOSED && !((p->flags | e->flags) & SMOS__EP_RST) && !(p->flags & SMOS__EP_FIN))
                smos__set_state(p, SMOS_TCP_ESTABLISHED, &facts, SMOS__TCP_RECEIVER_STATE);
            else if ((p->state == SMOS_TCP_SYN_SENT && (e->flags & SMOS__EP_SYN || l->payload_len || !(p->flags & SMOS__EP_SYN))) || (p->state == SMOS_TCP_SYN_RECEIVED && p->flags & SMOS__EP_ACKED && smos__seq_gt(p->snd_una, p->isn)))
                smos__set_state(p, SMOS_TCP_ESTABLISHED, &facts, SMOS__TCP_RECEIVER_STATE);
            else if (p->state == SMOS_TCP_SYN_RECEIVED && !(p->flags & SMOS__EP_SYN))
                smos__set_state(p, SMOS_TCP_ESTABLISHED, &facts, SMOS__TCP_RECEIVER_STATE); /* its SYN/ACK was not captured */
            if (p->flags & SMOS__EP_FIN_ACKED) {
                if (p->state == SMOS_TCP_FIN_WAIT_1) smos__set_state(p, SMOS_TCP_FIN_WAIT_2, &facts, SMOS__TCP_RECEIVER_STATE);
                else if (p->state == SMOS_TCP_CLOSING) smos__set_state(p, SMOS_TCP_TIME_WAIT, &facts, SMOS__TCP_RECEIVER_STATE);
                else if (p->state == SMOS_TCP_LAST_ACK) smos__set_state(p, SMOS_TCP_CLOSED, &facts, SMOS__TCP_RECEIVER_STATE);
            }
            /* The receiver of an ACK in SYN-RECEIVED is established only now; what it sent as SYN data is decided too. */
        }
        if (__builtin_expect(p->flags & SMOS__EP_SYN_DATA, 0)) {
            bool accepted = smos__seq_gt(l->ack, p->isn + 1);
            if (!accepted) smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_SYN_DATA_IGNORED);
            smos__stream_syn_data(t, !from, accepted);
            if (!accepted) p->snd_nxt = p->isn + 1;
        }
        if (__builtin_expect(smos__seq_gt(p->snd_una, p->rcv_nxt), 0)) {
            smos__refused_taken(t, !from);
            if (p->flags & SMOS__EP_HOLE || t->config->gaps_at_once) smos__stream_acked(t, !from);
            fin_received(t, !from, &facts);
        }
    }
    if (__builtin_expect(flags & SMOS__URG && l->payload_len, 0))
        urgent_segment(t, l, from, seq);
    else if (l->payload_len)
        smos__stream_segment(t, from, seq, l->payload, l->payload_captured, l->payload_len);
    if (__builtin_expect(e->flags & SMOS__EP_FIN, 0)) fin_received(t, from, &facts);
    if (__builtin_expect(!(t->flow->flags & SMOS__FLOW_SETUP), 0) && e->flags & p->flags & SMOS__EP_SYN && smos__synchronized(e->state) && smos__synchronized(p->state)) {
        t->flow->flags |= SMOS__FLOW_SETUP;
        facts |= SMOS__TCP_SETUP;
    }
    if (__builtin_expect(e->flags & p->flags & SMOS__EP_FIN, 0) && (e->flags & p->flags & SMOS__EP_FIN_ACKED || e->state == SMOS_TCP_CLOSED || p->state == SMOS_TCP_CLOSED))
        facts |= SMOS__TCP_CLOSED;
    return facts;
}


void smos__tcp_finish(smos__tcp_t *t)
{
    smos__stream_finish(t, SMOS_CLIENT);
    smos__stream_finish(t, SMOS_SERVER);
}
