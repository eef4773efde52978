/* Round-trip times: one probe at a time in each direction, not over what was sent twice (Karn). */
#include "tcp/tcp.h"


void smos__tcp_rtt_begin(smos__tcp_t *t, int from, uint32_t ends_with)
{
    smos__endpoint_t *e = &t->flow->end[from];
    if (!(t->config->detail & SMOS_DETAIL_RTT) || e->flags & SMOS__EP_RTT) return;
    if (e->flags & SMOS__EP_ACKED && smos__seq_geq(e->snd_una, ends_with)) return; /* the acknowledgement was captured first */
    if (__builtin_expect(t->cold->end[from].marks & SMOS__MARK_LOSS, 0)) {
        if (smos__tcp_lost(t, from, e->snd_una)) return;
        t->cold->end[from].marks &= (uint8_t)~SMOS__MARK_LOSS; /* all of it was acknowledged */
    }
    e->flags |= SMOS__EP_RTT;
    t->cold->end[from].rtt_seq = ends_with;
    t->cold->end[from].rtt_sent_us = (uint32_t)((t->now_ns - t->cold->start_ns) / 1000);
}


void smos__tcp_rtt_end(smos__tcp_t *t, int from)
{
    smos__endpoint_t *e = &t->flow->end[from];
    smos__endpoint_cold_t *c = &t->cold->end[from];
    if (!(e->flags & SMOS__EP_RTT) || smos__seq_lt(e->snd_una, c->rtt_seq)) return;
    uint32_t us = (uint32_t)((t->now_ns - t->cold->start_ns) / 1000) - c->rtt_sent_us;
    if (!us) us = 1;
    e->flags &= (uint16_t)~SMOS__EP_RTT;
    if (e->flags & SMOS__EP_SYN && c->rtt_seq == e->isn + 1)
        c->rtt_handshake_us = us;
    else if (!c->rtt_min_us || us < c->rtt_min_us)
        c->rtt_min_us = us;
}


void smos__tcp_rtt(smos__tcp_t *t, const smos__layer_t *l, int from)
{
    if (t->flow->end[!from].flags & SMOS__EP_RTT) smos__tcp_rtt_end(t, !from);
    if (l->payload_len) smos__tcp_rtt_begin(t, from, l->seq + l->payload_len);
}
