#include "tcp/tcp.h"

#include <string.h>


void smos__refused_keep(smos__tcp_t *t, const smos__layer_t *l, int from)
{
    const smos__endpoint_t *e = &t->flow->end[from];
    smos__refused_t *r = t->refused;
    const uint32_t length = l->payload_len;
    if (!r || !length || l->payload_captured != length || length > SMOS__REFUSED_LONGEST || l->tcp_flags & SMOS__URG) return;
    if (!(e->flags & SMOS__EP_BASE) || e->flags & (SMOS__EP_STOPPED | SMOS__EP_SYN_DATA) || !(t->flow->flags & SMOS__FLOW_STREAM_OF(from)) || t->flow->flags & SMOS__FLOW_EDITED) return;
    if (smos__seq_leq(l->seq + length, e->rcv_nxt) || smos__seq_gt(l->seq, e->rcv_nxt + SMOS__MAX_WINDOW)) return;
    if (r->used % SMOS__REFUSED_BYTES + length > SMOS__REFUSED_BYTES) r->used += SMOS__REFUSED_BYTES - r->used % SMOS__REFUSED_BYTES; /* none goes around the edge */
    r->segment[r->next++ % SMOS__REFUSED_SEGMENTS] = (smos__refused_segment_t){t->flow, t->flow->generation & ~1u, l->seq, length, (uint8_t)from, r->used};
    memcpy(r->bytes + r->used % SMOS__REFUSED_BYTES, l->payload, length);
    r->used += length;
    t->flow->flags |= SMOS__FLOW_REFUSED;
}


/* The first of them in the stream that the acknowledgement covers to its end. */
static smos__refused_segment_t *first_acknowledged(const smos__tcp_t *t, int from)
{
    const smos__endpoint_t *e = &t->flow->end[from];
    smos__refused_segment_t *first = NULL;
    for (int i = 0; i < SMOS__REFUSED_SEGMENTS; i++) {
        smos__refused_segment_t *s = &t->refused->segment[i];
        if (s->flow != t->flow || s->generation != (t->flow->generation & ~1u) || s->from != from || s->at + SMOS__REFUSED_BYTES < t->refused->used) continue;
        if (smos__seq_leq(s->seq + s->length, e->rcv_nxt) || smos__seq_gt(s->seq + s->length, e->snd_una)) continue;
        if (!first || smos__seq_lt(s->seq, first->seq)) first = s;
    }
    return first;
}


void smos__refused_taken(smos__tcp_t *t, int from)
{
    smos__endpoint_t *e = &t->flow->end[from];
    smos__refused_segment_t *s;
    if (!t->refused || !(t->flow->flags & SMOS__FLOW_REFUSED)) return;
    while ((s = first_acknowledged(t, from))) {
        s->flow = NULL;
        e->snd_nxt = smos__seq_max(e->snd_nxt, s->seq + s->length);
        smos__stream_segment(t, from, s->seq, t->refused->bytes + s->at % SMOS__REFUSED_BYTES, s->length, s->length);
    }
}
