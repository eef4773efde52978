/* fast.h: the common segment, on the hot record alone: the next bytes or an acknowledgement of an established connection without holes. */
#ifndef SMOS__FAST_H
#define SMOS__FAST_H

#include <string.h>

#include "tcp/tcp.h"

/* state, wscale and flags of an endpoint as they lie in memory, in one word. */
#define SMOS__STATE(state) ((uint32_t)(state))
#define SMOS__FLAGS(flags) ((uint32_t)(flags) << 16)
_Static_assert(offsetof(smos__endpoint_t, flags) == offsetof(smos__endpoint_t, state) + 2 && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "read as one word");

static inline uint32_t smos__state_word(const smos__endpoint_t *e)
{
    uint32_t word;
    memcpy(&word, &e->state, sizeof word);
    return word;
}

/* Only segments like this may go the short way. */
static inline bool smos__tcp_usual(const smos__layer_t *l) { return (l->tcp_flags & (SMOS__SYN | SMOS__FIN | SMOS__RST | SMOS__URG | SMOS__ACK)) == SMOS__ACK; }

/* Timestamps as they should be: newer than the last, and there where both ends have them. */
static inline bool smos__tcp_fast_timestamp(const smos__endpoint_t *e, const smos__layer_t *l, uint32_t mine, uint32_t both)
{
    if (l->flags & (SMOS__HAS_TIMESTAMP | SMOS__HAS_SACK)) return !(l->flags & SMOS__HAS_SACK) && (int32_t)(l->tsval - e->ts_recent) >= 0 && mine & SMOS__FLAGS(SMOS__EP_TIMESTAMPS);
    return !(both & SMOS__FLAGS(SMOS__EP_TIMESTAMPS)); /* else one is missing */
}

/* RFC 7323 4.3, of a segment for which that is true and which is the next in its stream. */
static inline void smos__tcp_fast_take_timestamp(smos__endpoint_t *e, const smos__layer_t *l, int64_t now_ns)
{
    if (l->flags & SMOS__HAS_TIMESTAMP && smos__seq_leq(l->seq, e->snd_una)) {
        e->ts_recent = l->tsval;
        e->ts_time = smos__ts_clock(now_ns);
    }
}

/* Is all that the segment, the next of `e`'s stream, says of the other stream and of the time as it should be? Sets the window that it announces. `mine` is the state word of `e`, `both` what the words have in common. */
static inline bool smos__tcp_fast_numbers(const smos__endpoint_t *e, const smos__endpoint_t *p, const smos__layer_t *l, uint32_t mine, uint32_t both, uint32_t *out)
{
    uint32_t window = l->window;
    if (both & SMOS__FLAGS(SMOS__EP_WSCALE)) window <<= e->wscale;
    const uint32_t una = p->snd_una;
    /* The acknowledgement is of what was seen, the window not closed, and its right edge does not move left: by rounding, or not. */
    if (!window || ((l->ack - una) | (p->snd_nxt - l->ack)) >> 31 || smos__seq_gt(una + e->window, l->ack + window)) return false;
    if (l->seq - e->snd_una > smos__window_slack(p->window)) return false;
    *out = window;
    return smos__tcp_fast_timestamp(e, l, mine, both);
}

/* `e` sent the segment, which is smos__tcp_usual, to `p`. The shorter way of smos__tcp_sender and smos__tcp_receiver for segments that move nothing but snd_nxt, snd_una and the window; the caller then
 * delivers the payload with smos__stream_segment, and calls smos__tcp_rtt if round-trip times are wanted. False: nothing was changed, take the long way. */
static inline bool smos__tcp_fast(smos__endpoint_t *e, smos__endpoint_t *p, const smos__layer_t *l, int64_t now_ns)
{
    const uint32_t need = SMOS__STATE(SMOS_TCP_ESTABLISHED) | SMOS__FLAGS(SMOS__EP_BASE | SMOS__EP_ACKED | SMOS__EP_WINDOW);
    const uint32_t never = SMOS__FLAGS(SMOS__EP_FIN | SMOS__EP_RST | SMOS__EP_SYN_DATA | SMOS__EP_ZERO_WINDOW | SMOS__EP_HOLE);
    const uint32_t mine = smos__state_word(e), peers = smos__state_word(p), both = mine & peers;
    /* A state that both have is in `both` and nothing else is in `either`. */
    if ((both & (need | SMOS__STATE(0xff))) != need || ((mine | peers) & (never | SMOS__STATE(0xff))) != SMOS__STATE(SMOS_TCP_ESTABLISHED)) return false;
    if ((l->seq ^ e->snd_nxt) | (e->rcv_nxt ^ e->snd_nxt) | (p->rcv_nxt ^ p->snd_nxt)) return false;
    uint32_t window;
    if (!smos__tcp_fast_numbers(e, p, l, mine, both, &window)) return false;
    smos__tcp_fast_take_timestamp(e, l, now_ns);
    p->snd_una = l->ack;
    e->window = window;
    e->snd_nxt += l->payload_len;
    return true;
}

#endif
