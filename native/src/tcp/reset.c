#include "tcp/tcp.h"


/* RFC 5961 3.2 asks for exactly RCV.NXT. What a middlebox emulates as RCV.NXT may differ from the receiver's own by packets in
 * flight, so the places that a sender's stack can rightly name are accepted: the emulated RCV.NXT, what the receiver last acknowledged,
 * and the sender's own SND.NXT. Anything else in the window would get a challenge ACK: not obeyed. */
bool smos__tcp_reset_valid(const smos__tcp_t *t, const smos__layer_t *l, int from, smos__anomaly_t *why)
{
    const smos__endpoint_t *e = &t->flow->end[from], *p = &t->flow->end[!from];
    if (p->state == SMOS_TCP_SYN_SENT && !(e->flags & SMOS__EP_SYN)) {
        /* RFC 9293 3.10.7.3: a RST in SYN-SENT is valid if it acknowledges the SYN. */
        if (!(l->tcp_flags & SMOS__ACK)) {
            if (!(e->flags & SMOS__EP_BASE)) return *why = SMOS__ANOMALY_TCP_RST_WRONG_ACK, false;
        } else if (smos__seq_gt(l->ack, p->isn) && smos__seq_leq(l->ack, p->snd_nxt)) {
            return true;
        } else {
            return *why = SMOS__ANOMALY_TCP_RST_WRONG_ACK, false;
        }
    }
    if (!(e->flags & (SMOS__EP_BASE | SMOS__EP_ACKED))) return true; /* nothing is known of its sequence space */
    if (e->flags & SMOS__EP_BASE) {
        if (l->seq == e->snd_nxt || l->seq == e->rcv_nxt) return true;
        /* the sender of a FIN may count it or not */
        if (e->flags & SMOS__EP_FIN && l->seq == t->cold->end[from].fin_seq) return true;
    }
    if (e->flags & SMOS__EP_ACKED && l->seq == e->snd_una) return true;
    uint32_t left = e->flags & SMOS__EP_ACKED ? e->snd_una : e->rcv_nxt;
    uint32_t window = p->flags & SMOS__EP_WINDOW ? p->window : 65535;
    if (smos__seq_geq(l->seq, left) && smos__seq_lt(l->seq, left + (window ? window : 1)))
        *why = SMOS__ANOMALY_TCP_RST_IN_WINDOW;
    else
        *why = SMOS__ANOMALY_TCP_RST_OUT_OF_WINDOW;
    return false;
}
