/* Names what is odd about a segment, by the phase of the connection that it comes in; changes nothing. What a segment is refused for is named
 * where it is refused (tcp.c), with the help of smos__tcp_notice_ack and smos__tcp_notice_outside; everything else is here, and looked for only
 * on the long way and only when anomalies are wanted. */
#include "tcp/tcp.h"
#include "wire/bytes.h"

#define NOTHING SMOS__ANOMALY_NONE
#define FLOOD 10 /* Linux sends a SYN seven times and a SYN/ACK six times (tcp_syn_retries, tcp_synack_retries) */

static const uint8_t INVALID_ACK[] = {
    [SMOS_TCP_ESTABLISHED] = SMOS__ANOMALY_TCP_EST_INVALID_ACK,   [SMOS_TCP_CLOSE_WAIT] = SMOS__ANOMALY_TCP_CLOSEWAIT_INVALID_ACK,
    [SMOS_TCP_FIN_WAIT_1] = SMOS__ANOMALY_TCP_FIN1_INVALID_ACK,   [SMOS_TCP_FIN_WAIT_2] = SMOS__ANOMALY_TCP_FIN2_INVALID_ACK,
    [SMOS_TCP_CLOSING] = SMOS__ANOMALY_TCP_CLOSING_INVALID_ACK,   [SMOS_TCP_LAST_ACK] = SMOS__ANOMALY_TCP_LASTACK_INVALID_ACK,
    [SMOS_TCP_TIME_WAIT] = SMOS__ANOMALY_TCP_TIMEWAIT_INVALID_ACK,
};

static const uint8_t WRONG_SEQ[] = {
    [SMOS_TCP_FIN_WAIT_1] = SMOS__ANOMALY_TCP_FIN1_ACK_WRONG_SEQ, [SMOS_TCP_FIN_WAIT_2] = SMOS__ANOMALY_TCP_FIN2_ACK_WRONG_SEQ,
    [SMOS_TCP_CLOSING] = SMOS__ANOMALY_TCP_CLOSING_ACK_WRONG_SEQ, [SMOS_TCP_LAST_ACK] = SMOS__ANOMALY_TCP_LASTACK_ACK_WRONG_SEQ,
    [SMOS_TCP_TIME_WAIT] = SMOS__ANOMALY_TCP_TIMEWAIT_ACK_WRONG_SEQ,
};

_Static_assert(SMOS__ANOMALY_COUNT <= 256, "anomalies fit the tables' bytes");


static bool established(const smos__endpoint_t *e) { return e->state >= SMOS_TCP_ESTABLISHED; }


static smos__anomaly_t odd_syn(const smos__tcp_t *t, const smos__layer_t *l, int from)
{
    const smos__endpoint_t *e = &t->flow->end[from], *p = &t->flow->end[!from];
    bool same = e->flags & SMOS__EP_SYN && l->seq == e->isn;
    if (same && (e->flags | p->flags) & SMOS__EP_FIN) return SMOS__ANOMALY_TCP_SHUTDOWN_SYN_RESEND;
    if (established(e) && established(p) && e->flags & SMOS__EP_BASE) {
        if (from == SMOS_SERVER) return SMOS__ANOMALY_TCP_SYN_FROM_SERVER_ESTABLISHED;
        if (same) return SMOS__ANOMALY_TCP_SYN_RESEND_ESTABLISHED;
        return l->seq == e->isn ? NOTHING : SMOS__ANOMALY_TCP_SYN_ON_ESTABLISHED; /* the SYN may come late */
    }
    if (!(e->flags & SMOS__EP_SYN)) return p->state == SMOS_TCP_SYN_SENT && p->flags & SMOS__EP_SYN ? SMOS__ANOMALY_TCP_SIMULTANEOUS_OPEN : NOTHING;
    if (from == SMOS_SERVER && e->state == SMOS_TCP_SYN_RECEIVED) return SMOS__ANOMALY_TCP_SYN_FROM_SERVER;
    if (!same) return SMOS__ANOMALY_TCP_SYN_RESEND_DIFFERENT_SEQ;
    return e->packets > FLOOD && !p->packets ? SMOS__ANOMALY_TCP_SYN_FLOOD : NOTHING;
}


static bool acknowledges(const smos__layer_t *l, const smos__endpoint_t *p)
{
    return smos__seq_gt(l->ack, p->isn) && smos__seq_leq(l->ack, p->snd_nxt);
}


static smos__anomaly_t odd_syn_ack_of_client(const smos__layer_t *l, const smos__endpoint_t *e, const smos__endpoint_t *p)
{
    if (established(e) && established(p)) return SMOS__ANOMALY_TCP_SYNACK_FROM_CLIENT_ESTABLISHED;
    if (!(p->flags & SMOS__EP_SYN)) return SMOS__ANOMALY_TCP_SYNACK_WRONG_DIRECTION;
    if (p->state == SMOS_TCP_SYN_SENT) { /* the server sent a SYN without ACK: the third of four */
        if (!acknowledges(l, p)) return SMOS__ANOMALY_TCP_4WHS_SYNACK_WRONG_ACK;
        if (e->flags & SMOS__EP_SYN && l->seq != e->isn) return SMOS__ANOMALY_TCP_4WHS_SYNACK_WRONG_SYN;
    }
    return SMOS__ANOMALY_TCP_SYNACK_FROM_CLIENT;
}


static smos__anomaly_t odd_syn_ack(const smos__tcp_t *t, const smos__layer_t *l, int from)
{
    const smos__endpoint_t *e = &t->flow->end[from], *p = &t->flow->end[!from];
    if (from == SMOS_CLIENT) return odd_syn_ack_of_client(l, e, p);
    bool same = e->flags & SMOS__EP_BASE && l->seq == e->isn, fast_open = p->flags & SMOS__EP_TFO;
    if (same && (e->flags | p->flags) & SMOS__EP_FIN) return SMOS__ANOMALY_TCP_SHUTDOWN_SYN_RESEND;
    if (established(e) && established(p)) {
        if (!same) return SMOS__ANOMALY_TCP_SYNACK_ON_ESTABLISHED;
        if (!(e->flags & SMOS__EP_SYN)) return NOTHING; /* late, not again */
        return p->flags & SMOS__EP_SYN && !fast_open && l->ack != p->isn + 1 ? SMOS__ANOMALY_TCP_SYNACK_DIFFERENT_ACK_ESTABLISHED : SMOS__ANOMALY_TCP_SYNACK_RESEND_ESTABLISHED;
    }
    if (e->flags & SMOS__EP_SYN && !same) return SMOS__ANOMALY_TCP_SYNACK_DIFFERENT_SEQ;
    if (!(p->flags & SMOS__EP_SYN)) return NOTHING;
    if (e->flags & SMOS__EP_SYN) {
        if (p->flags & SMOS__EP_ACKED && l->ack != p->snd_una) return SMOS__ANOMALY_TCP_SYNACK_DIFFERENT_ACK;
        return e->packets > FLOOD && !(e->flags & SMOS__EP_ACKED) ? SMOS__ANOMALY_TCP_SYNACK_FLOOD : NOTHING;
    }
    return acknowledges(l, p) ? NOTHING : SMOS__ANOMALY_TCP_SYNACK_WRONG_ACK;
}


/* A segment without SYN while the peer or the sender waits for the handshake's last acknowledgement. */
static smos__anomaly_t odd_opening(const smos__tcp_t *t, const smos__layer_t *l, int from)
{
    const smos__endpoint_t *e = &t->flow->end[from], *p = &t->flow->end[!from];
    if (!(e->flags & SMOS__EP_SYN)) return NOTHING;
    if (e->state == SMOS_TCP_SYN_SENT && from == SMOS_CLIENT && !p->packets) return l->seq != e->snd_nxt ? SMOS__ANOMALY_TCP_ASYNC_WRONG_SEQ : NOTHING;
    if (from == SMOS_CLIENT || !(p->flags & SMOS__EP_SYN)) return NOTHING;
    if (e->state == SMOS_TCP_SYN_RECEIVED && !(e->flags & SMOS__EP_ACKED) && !((e->flags | p->flags) & SMOS__EP_TFO) && !(l->tcp_flags & SMOS__FIN))
        return l->payload_len ? SMOS__ANOMALY_TCP_ACK_DATA_INJECT : SMOS__ANOMALY_TCP_ACK_WRONG_DIRECTION;
    if (p->state == SMOS_TCP_SYN_RECEIVED && established(e) && (smos__seq_leq(l->seq, e->isn) || smos__seq_gt(l->seq, e->snd_nxt))) return SMOS__ANOMALY_TCP_4WHS_WRONG_SEQ;
    return NOTHING;
}


/* An acknowledgement alone, at a place where nothing can be acknowledged from. What was lost to the capture moves it forward, so that only
 * a FIN tells how far is too far; a keepalive stands one byte before the edge. */
static smos__anomaly_t odd_place(const smos__layer_t *l, const smos__endpoint_t *e, uint32_t fin_seq)
{
    bool before = e->flags & SMOS__EP_ACKED && smos__seq_lt(l->seq + 1, e->snd_una);
    bool beyond = e->flags & SMOS__EP_FIN && smos__seq_gt(l->seq, fin_seq + 1);
    if (!before && !beyond) return NOTHING;
    if (e->state == SMOS_TCP_ESTABLISHED) return SMOS__ANOMALY_TCP_EST_BEFORE_LAST_ACK;
    if (e->state == SMOS_TCP_CLOSE_WAIT) return SMOS__ANOMALY_TCP_CLOSEWAIT_BEFORE_LAST_ACK;
    return e->state < sizeof WRONG_SEQ ? WRONG_SEQ[e->state] : NOTHING;
}


static void odd_sack(smos__tcp_t *t, const smos__layer_t *l, int from)
{
    const smos__endpoint_t *p = &t->flow->end[!from];
    if (p->flags & SMOS__EP_SYN && !(t->cold->end[!from].options & SMOS__OPTION_SACK)) smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_SACK_NOT_PERMITTED);
    if (!(p->flags & SMOS__EP_BASE)) return;
    for (int i = 0; i < l->sack_blocks; i++) {
        uint32_t left = smos__be32(l->sack + 8 * i), right = smos__be32(l->sack + 8 * i + 4);
        /* What the capture lost may be named: only as wrong as an acknowledgement would be */
        if (smos__seq_gt(right, left) && smos__seq_leq(right, p->snd_nxt + SMOS__MAX_WINDOW)) continue;
        smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_SACK_INVALID);
        return;
    }
}


/* What was sent beyond the acknowledgement that closed the window, and is one byte, is a probe (RFC 9293 3.8.6.1); mostly the receiver does not take it. */
static bool probe_acknowledged(const smos__layer_t *l, const smos__endpoint_t *e, const smos__endpoint_t *p)
{
    if (!(l->tcp_flags & SMOS__ACK) || e->state != SMOS_TCP_ESTABLISHED || !(p->flags & SMOS__EP_ACKED) || p->flags & SMOS__EP_FIN) return false;
    return l->ack == p->snd_nxt && l->ack == p->snd_una + 1;
}


static void note(smos__tcp_t *t, smos__anomaly_t what)
{
    if (what != NOTHING) smos__tcp_anomaly(t, what);
}


void smos__tcp_notice(smos__tcp_t *t, const smos__layer_t *l, int from)
{
    const smos__endpoint_t *e = &t->flow->end[from], *p = &t->flow->end[!from];
    uint8_t flags = l->tcp_flags;
    if (!(flags & SMOS__ACK) && l->ack) smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_BROKEN_ACK);
    if (flags & SMOS__RST) return;
    if (flags & SMOS__SYN) {
        note(t, flags & SMOS__ACK ? odd_syn_ack(t, l, from) : odd_syn(t, l, from));
        return;
    }
    if (e->flags & SMOS__EP_RST) smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_RST_INJECTED);
    if (!established(e) || !established(p)) note(t, odd_opening(t, l, from));
    if (e->flags & SMOS__EP_ZERO_WINDOW && probe_acknowledged(l, e, p)) smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_ACK_OF_PROBE);
    if (e->flags & p->flags & SMOS__EP_TIMESTAMPS && !(l->flags & SMOS__HAS_TIMESTAMP)) smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_TIMESTAMP_MISSING);
    if (l->flags & SMOS__HAS_SACK) odd_sack(t, l, from);
    if (l->payload_len || flags & SMOS__FIN || !(flags & SMOS__ACK)) return;
    note(t, odd_place(l, e, t->cold->end[from].fin_seq));
    /* Both numbers beyond what either end sent, and the window lowered: somebody who guesses them wants the peer to stop. */
    if (p->flags & SMOS__EP_BASE && e->flags & SMOS__EP_WINDOW && smos__seq_gt(l->ack, p->snd_nxt) && smos__seq_gt(l->seq, e->snd_nxt)) {
        uint32_t window = l->window;
        if (e->flags & p->flags & SMOS__EP_WSCALE) window <<= e->wscale;
        if (window < e->window) smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_BAD_WINDOW_UPDATE);
    }
}


/* Does this segment answer a SYN/ACK that nobody acknowledged yet? */
static bool ends_handshake(const smos__tcp_t *t, int from)
{
    const smos__endpoint_t *p = &t->flow->end[!from];
    return p->state == SMOS_TCP_SYN_RECEIVED && p->flags & SMOS__EP_SYN && !(p->flags & SMOS__EP_ACKED && smos__seq_gt(p->snd_una, p->isn)) && t->flow->flags & SMOS__FLOW_TWO_SIDED;
}


void smos__tcp_notice_ack(smos__tcp_t *t, const smos__layer_t *l, int from, smos__anomaly_t what)
{
    const smos__endpoint_t *e = &t->flow->end[from], *p = &t->flow->end[!from];
    if (l->tcp_flags & SMOS__SYN) return; /* odd_syn_ack has its name */
    if (from == SMOS_SERVER && p->state == SMOS_TCP_SYN_RECEIVED && p->flags & SMOS__EP_SYN) {
        smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_4WHS_INVALID_ACK);
    } else if (ends_handshake(t, from)) {
        smos__tcp_anomaly(t, l->seq == e->isn + 1 ? SMOS__ANOMALY_TCP_RIGHT_SEQ_WRONG_ACK : SMOS__ANOMALY_TCP_WRONG_ACK_3WHS);
    } else if (what == SMOS__ANOMALY_TCP_INVALID_ACK) {
        smos__tcp_anomaly(t, what);
        if (l->tcp_flags & SMOS__FIN)
            smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_FIN_INVALID_ACK);
        else if (e->state < sizeof INVALID_ACK)
            note(t, INVALID_ACK[e->state]);
    } else if (what != SMOS__ANOMALY_TCP_ACK_UNSEEN || (p->packets && (smos__seq_gt(l->ack, p->snd_una) || !(p->flags & SMOS__EP_ACKED)))) {
        smos__tcp_anomaly(t, what);
    }
}


void smos__tcp_notice_outside(smos__tcp_t *t, const smos__layer_t *l, int from)
{
    uint8_t mine = t->flow->end[from].state, peers = t->flow->end[!from].state;
    bool fin = l->tcp_flags & SMOS__FIN;
    if (mine == SMOS_TCP_CLOSE_WAIT && (!fin || from == SMOS_SERVER))
        smos__tcp_anomaly(t, fin ? SMOS__ANOMALY_TCP_CLOSEWAIT_FIN_OUT_OF_WINDOW : SMOS__ANOMALY_TCP_CLOSEWAIT_OUT_OF_WINDOW);
    else if (fin && peers == SMOS_TCP_FIN_WAIT_1)
        smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_FIN1_FIN_WRONG_SEQ);
    else if (fin && peers == SMOS_TCP_FIN_WAIT_2)
        smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_FIN2_FIN_WRONG_SEQ);
    else
        smos__tcp_anomaly(t, fin ? SMOS__ANOMALY_TCP_FIN_OUT_OF_WINDOW : SMOS__ANOMALY_TCP_OUT_OF_WINDOW);
}
