/* SYN and SYN/ACK: how a connection's numbers and options begin (RFC 9293 3.10.7). */
#include "tcp/endpoint.h"


/* Another base than was thought, before anything was delivered: what waits was placed by the old one. */
void smos__tcp_rebase(smos__tcp_t *t, int from, uint32_t seq)
{
    smos__endpoint_t *e = &t->flow->end[from];
    if (e->flags & (SMOS__EP_HOLE | SMOS__EP_SYN_DATA)) {
        smos__assembler_clear(&t->cold->end[from].assembler, t->pool);
        e->flags &= (uint16_t)~(SMOS__EP_HOLE | SMOS__EP_SYN_DATA);
    }
    if (e->flags & SMOS__EP_ACKED && smos__seq_lt(e->snd_una, seq)) e->flags &= (uint16_t)~SMOS__EP_ACKED; /* that was not this stream's */
    smos__set_base(e, seq);
    e->snd_nxt = seq;
}


void smos__tcp_syn_options(smos__tcp_t *t, const smos__layer_t *l, int from)
{
    smos__endpoint_t *e = &t->flow->end[from];
    smos__endpoint_cold_t *c = &t->cold->end[from];
    if (l->flags & SMOS__HAS_WSCALE) {
        e->flags |= SMOS__EP_WSCALE;
        e->wscale = l->wscale > 14 ? 14 : l->wscale; /* RFC 7323 2.3 */
    }
    if (l->flags & SMOS__HAS_MSS) c->mss = l->mss;
    if (l->flags & SMOS__SACK_PERMITTED) c->options |= SMOS__OPTION_SACK;
    if (l->flags & SMOS__HAS_TIMESTAMP) c->options |= SMOS__OPTION_TIMESTAMPS;
    if (l->flags & SMOS__HAS_TFO) {
        c->options |= SMOS__OPTION_TFO;
        e->flags |= SMOS__EP_TFO;
    }
    if ((l->tcp_flags & (SMOS__ECE | SMOS__CWR)) == (l->tcp_flags & SMOS__ACK ? SMOS__ECE : SMOS__ECE | SMOS__CWR)) c->options |= SMOS__OPTION_ECN;
}


/* What is wrong with a SYN has its name from notice.c. */
void smos__tcp_syn(smos__tcp_t *t, const smos__layer_t *l, int from, uint32_t *facts)
{
    smos__endpoint_t *e = &t->flow->end[from], *p = &t->flow->end[!from];
    bool ack = l->tcp_flags & SMOS__ACK;
    if (l->tcp_flags & SMOS__FIN) smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_SYN_FIN);
    if (ack && p->flags & SMOS__EP_SYN && !(e->flags & SMOS__EP_SYN) && e->flags & (SMOS__EP_BASE | SMOS__EP_RST) && l->ack == p->isn + 1 && !e->offset && !p->offset) {
        /* The SYN's true answer. A RST or FIN that came before it and gave no byte was somebody else's. */
        bool ended = (e->flags | p->flags) & (SMOS__EP_RST | SMOS__EP_FIN);
        e->flags &= (uint16_t)~(SMOS__EP_RST | SMOS__EP_FIN | SMOS__EP_FIN_RECEIVED | SMOS__EP_FIN_ACKED | SMOS__EP_BASE | SMOS__EP_ACKED);
        p->flags &= (uint16_t)~(SMOS__EP_RST | SMOS__EP_FIN | SMOS__EP_FIN_RECEIVED | SMOS__EP_FIN_ACKED);
        p->snd_nxt = p->isn + 1;
        p->state = SMOS_TCP_SYN_SENT;
        e->state = SMOS_TCP_CLOSED;
        if (ended) *facts |= SMOS__TCP_REVIVED;
    }
    if (e->flags & SMOS__EP_SYN && l->seq == e->isn) { /* once more */
        *facts |= SMOS__TCP_REXMIT;
        e->flags &= (uint16_t)~SMOS__EP_RTT; /* Karn: a retransmitted SYN measures nothing */
        e->snd_nxt = smos__seq_max(e->snd_nxt, l->seq + 1 + l->payload_len);
        if (!ack) { /* its data may be other data, or gone: the latest is what the peer will answer */
            *facts |= SMOS__TCP_VALID;
            return;
        }
    } else if (e->flags & SMOS__EP_SYN || (smos__synchronized(e->state) && e->flags & SMOS__EP_BASE && l->seq != e->isn)) {
        bool open = !smos__synchronized(p->state) || !(e->flags & SMOS__EP_ACKED);
        if (!ack || !open || !(e->flags & SMOS__EP_SYN)) return;
        t->cold->end[from].marks |= SMOS__MARK_ALTERNATE_ISN;
    }
    if (e->flags & SMOS__EP_BASE && e->offset && l->seq != e->isn) return; /* bytes went by already: no SYN moves them */
    if (ack && p->flags & SMOS__EP_SYN && (smos__seq_leq(l->ack, p->isn) || smos__seq_gt(l->ack, p->snd_nxt))) return;
    *facts |= SMOS__TCP_VALID;
    if (!(e->flags & SMOS__EP_SYN) || l->seq != e->isn) {
        if (!(e->flags & SMOS__EP_BASE) || l->seq != e->isn) smos__tcp_rebase(t, from, l->seq + 1);
        e->snd_nxt = smos__seq_max(e->snd_nxt, l->seq + 1 + l->payload_len);
        e->flags |= SMOS__EP_SYN;
        smos__tcp_syn_options(t, l, from);
        smos__tcp_rtt_begin(t, from, l->seq + 1);
    }
    if (ack) {
        if ((e->state == SMOS_TCP_CLOSED && !(e->flags & SMOS__EP_FIN)) || e->state == SMOS_TCP_SYN_SENT) smos__set_state(e, SMOS_TCP_SYN_RECEIVED, facts, SMOS__TCP_SENDER_STATE);
    } else {
        if (!smos__synchronized(e->state)) smos__set_state(e, SMOS_TCP_SYN_SENT, facts, SMOS__TCP_SENDER_STATE);
    }
}
