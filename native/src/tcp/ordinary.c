/* ordinary.c: the segments without data that open and close an ordinary connection (RFC 9293 3.5, 3.6).
 *
 * Half of a short connection's packets are of this kind. smos__tcp_sender and smos__tcp_receiver do the same to them, but have to ask for every other case too;
 * tests/test_ordinary.c holds both to the same result. */
#include "tcp/endpoint.h"
#include "tcp/fast.h"

#define FRESH (SMOS__STATE(SMOS_TCP_CLOSED) | 255u << 8) /* wscale not announced, no flags */
#define STATE_OF(word) ((word) & 0xff)
#define ODD (SMOS__EP_FIN | SMOS__EP_RST | SMOS__EP_SYN_DATA | SMOS__EP_ZERO_WINDOW | SMOS__EP_HOLE | SMOS__EP_STOPPED | SMOS__EP_TFO)


/* Its SYN, with the options of it: what smos__tcp_syn leaves of a fresh endpoint. */
static inline void begin(smos__tcp_t *t, smos__endpoint_t *e, const smos__layer_t *l, int from)
{
    uint16_t flags = SMOS__EP_SYN | SMOS__EP_BASE | SMOS__EP_WINDOW;
    e->isn = l->seq;
    e->snd_nxt = e->rcv_nxt = l->seq + 1;
    e->window = l->window;
    if (l->flags & SMOS__HAS_TIMESTAMP) {
        e->ts_recent = l->tsval;
        e->ts_time = smos__ts_clock(t->now_ns);
        flags |= SMOS__EP_TIMESTAMPS;
    }
    e->flags |= flags;
    smos__tcp_syn_options(t, l, from);
    smos__tcp_rtt_begin(t, from, l->seq + 1);
}


static inline void acknowledge(smos__tcp_t *t, smos__endpoint_t *p, uint32_t ack, int from)
{
    p->snd_una = ack;
    p->flags |= SMOS__EP_ACKED;
    if (p->flags & SMOS__EP_RTT) smos__tcp_rtt_end(t, !from);
}


static uint32_t syn(smos__tcp_t *t, const smos__layer_t *l)
{
    smos__endpoint_t *e = &t->flow->end[SMOS_CLIENT], *p = &t->flow->end[SMOS_SERVER];
    if (__builtin_expect(smos__state_word(e) != FRESH || smos__state_word(p) != FRESH, 0)) return 0;
    if (t->config->detail & SMOS_DETAIL_ANOMALIES) smos__tcp_notice(t, l, SMOS_CLIENT);
    begin(t, e, l, SMOS_CLIENT);
    e->state = SMOS_TCP_SYN_SENT;
    return SMOS__TCP_VALID | SMOS__TCP_SENDER_STATE;
}


static uint32_t syn_ack(smos__tcp_t *t, const smos__layer_t *l)
{
    smos__endpoint_t *e = &t->flow->end[SMOS_SERVER], *p = &t->flow->end[SMOS_CLIENT];
    const uint32_t need = SMOS__FLAGS(SMOS__EP_SYN | SMOS__EP_BASE | SMOS__EP_WINDOW), never = SMOS__FLAGS(ODD | SMOS__EP_ACKED), peers = smos__state_word(p);
    if (__builtin_expect(smos__state_word(e) != (FRESH | SMOS__STATE(SMOS_TCP_SYN_RECEIVED)) || STATE_OF(peers) != SMOS_TCP_SYN_SENT || (peers & (need | never)) != need, 0)) return 0;
    if (__builtin_expect(l->ack != p->isn + 1 || p->snd_nxt != l->ack || p->rcv_nxt != l->ack, 0)) return 0;
    if (t->config->detail & SMOS_DETAIL_ANOMALIES) smos__tcp_notice(t, l, SMOS_SERVER);
    begin(t, e, l, SMOS_SERVER);
    acknowledge(t, p, l->ack, SMOS_SERVER);
    return SMOS__TCP_VALID;
}


/* The acknowledgement of the SYN/ACK. */
static uint32_t opened(smos__tcp_t *t, const smos__layer_t *l, uint32_t mine, uint32_t peers)
{
    smos__endpoint_t *e = &t->flow->end[SMOS_CLIENT], *p = &t->flow->end[SMOS_SERVER];
    const uint32_t need = SMOS__FLAGS(SMOS__EP_SYN | SMOS__EP_BASE | SMOS__EP_WINDOW), never = SMOS__FLAGS(ODD), acked = SMOS__FLAGS(SMOS__EP_ACKED);
    if (__builtin_expect(STATE_OF(mine) != SMOS_TCP_ESTABLISHED || (mine & (need | never | acked)) != (need | acked) || (peers & (need | never | acked)) != need, 0)) return 0;
    if (__builtin_expect(l->seq != e->snd_nxt || e->rcv_nxt != l->seq || e->snd_una != l->seq || l->ack != p->isn + 1 || p->snd_nxt != l->ack || p->rcv_nxt != l->ack, 0)) return 0;
    if (__builtin_expect(t->flow->flags & SMOS__FLOW_SETUP || !smos__tcp_fast_timestamp(e, l, mine, mine & peers), 0)) return 0;
    if (t->config->detail & SMOS_DETAIL_ANOMALIES) smos__tcp_notice(t, l, SMOS_CLIENT);
    smos__tcp_fast_take_timestamp(e, l, t->now_ns);
    acknowledge(t, p, l->ack, SMOS_CLIENT);
    e->window = mine & peers & SMOS__FLAGS(SMOS__EP_WSCALE) ? (uint32_t)l->window << e->wscale : l->window;
    return SMOS__TCP_VALID;
}


/* 0 if all that `e` sent came, up to its FIN, which takes a number, if it sent that: `fin` is 1. Without branches: which end closes first could not be foretold. */
static inline uint32_t missing(const smos__endpoint_t *e, uint32_t word, uint32_t fin)
{
    _Static_assert(SMOS__EP_FIN_RECEIVED == SMOS__EP_FIN << 1, "compared with a shift");
    return ((e->rcv_nxt + fin) ^ e->snd_nxt) | ((word ^ word << 1) & SMOS__FLAGS(SMOS__EP_FIN_RECEIVED));
}


/* A FIN in its place, or an acknowledgement after one. */
static uint32_t closing(smos__tcp_t *t, const smos__layer_t *l, int from, uint32_t mine, uint32_t peers)
{
    smos__endpoint_t *e = &t->flow->end[from], *p = &t->flow->end[!from];
    const uint32_t need = SMOS__FLAGS(SMOS__EP_BASE | SMOS__EP_ACKED | SMOS__EP_WINDOW), never = SMOS__FLAGS(ODD & ~(SMOS__EP_FIN | SMOS__EP_TFO | SMOS__EP_STOPPED));
    const uint32_t own_fin = mine / SMOS__FLAGS(SMOS__EP_FIN) & 1, peers_fin = peers / SMOS__FLAGS(SMOS__EP_FIN) & 1;
    const bool fin = l->tcp_flags & SMOS__FIN;
    __asm__("" : "+r"(e), "+r"(p)); /* as pointers: they are not worked out again for each field */
    if (__builtin_expect(((mine & peers) & need) != need || (mine | peers) & never || STATE_OF(mine) < SMOS_TCP_ESTABLISHED || STATE_OF(peers) < SMOS_TCP_ESTABLISHED, 0)) return 0;
    if (__builtin_expect(fin ? STATE_OF(mine) != SMOS_TCP_ESTABLISHED && STATE_OF(mine) != SMOS_TCP_CLOSE_WAIT : !(own_fin | peers_fin), 0)) return 0;
    if (__builtin_expect((l->seq ^ e->snd_nxt) | missing(e, mine, own_fin) | missing(p, peers, peers_fin) | (own_fin & fin) | (t->flow->flags & SMOS__FLOW_REFUSED) | t->config->gaps_at_once, 0)) return 0;
    /* Short of the end: whether it covers the FIN, behind which more data may have come, the cold record tells. */
    if (__builtin_expect(peers_fin && l->ack != p->snd_nxt && l->ack != p->snd_una, 0)) return 0;
    if (__builtin_expect(!(t->flow->flags & SMOS__FLOW_SETUP) && mine & peers & SMOS__FLAGS(SMOS__EP_SYN), 0)) return 0;
    uint32_t window;
    if (__builtin_expect(!smos__tcp_fast_numbers(e, p, l, mine, mine & peers, &window), 0)) return 0;
    if (t->config->detail & SMOS_DETAIL_ANOMALIES) smos__tcp_notice(t, l, from);
    uint32_t facts = SMOS__TCP_VALID;
    smos__tcp_fast_take_timestamp(e, l, t->now_ns);
    e->window = window;
    if (l->ack != p->snd_una) {
        acknowledge(t, p, l->ack, from);
        p->flags |= peers_fin ? SMOS__EP_FIN_ACKED : 0;
    }
    if (fin) {
        e->flags |= SMOS__EP_FIN;
        t->cold->end[from].fin_seq = l->seq;
        e->snd_nxt = l->seq + 1;
        smos__set_state(e, e->state == SMOS_TCP_ESTABLISHED ? SMOS_TCP_FIN_WAIT_1 : p->flags & SMOS__EP_FIN_ACKED ? SMOS_TCP_LAST_ACK : SMOS_TCP_CLOSING, &facts, SMOS__TCP_SENDER_STATE);
    }
    return facts;
}


uint32_t smos__tcp_ordinary(smos__tcp_t *t, const smos__layer_t *l, int from)
{
    if (__builtin_expect(l->payload_len || !l->window || l->flags & SMOS__HAS_TFO, 0)) return 0;
    const uint32_t mine = smos__state_word(&t->flow->end[from]), peers = smos__state_word(&t->flow->end[!from]);
    switch (l->tcp_flags & (SMOS__SYN | SMOS__FIN | SMOS__RST | SMOS__URG | SMOS__ACK)) {
    case SMOS__SYN: return from == SMOS_CLIENT ? syn(t, l) : 0;
    case SMOS__SYN | SMOS__ACK: return from == SMOS_SERVER ? syn_ack(t, l) : 0;
    case SMOS__ACK:
        if (STATE_OF(peers) == SMOS_TCP_SYN_RECEIVED) return from == SMOS_CLIENT ? opened(t, l, mine, peers) : 0;
        /* fall through */
    case SMOS__FIN | SMOS__ACK: return closing(t, l, from, mine, peers);
    default: return 0;
    }
}


/* The peer's FIN was acknowledged. */
static inline uint8_t after_acknowledgement(uint8_t state)
{
    switch (state) {
    case SMOS_TCP_FIN_WAIT_1: return SMOS_TCP_FIN_WAIT_2;
    case SMOS_TCP_CLOSING: return SMOS_TCP_TIME_WAIT;
    case SMOS_TCP_LAST_ACK: return SMOS_TCP_CLOSED;
    default: return state;
    }
}


static inline uint8_t after_fin(uint8_t state, bool own_acknowledged)
{
    switch (state) {
    case SMOS_TCP_ESTABLISHED: return SMOS_TCP_CLOSE_WAIT;
    case SMOS_TCP_FIN_WAIT_1: return own_acknowledged ? SMOS_TCP_TIME_WAIT : SMOS_TCP_CLOSING;
    case SMOS_TCP_FIN_WAIT_2: return SMOS_TCP_TIME_WAIT;
    default: return state;
    }
}


static uint32_t closing_received(smos__tcp_t *t, const smos__layer_t *l, int from, uint32_t facts)
{
    smos__endpoint_t *e = &t->flow->end[from], *p = &t->flow->end[!from];
    const bool answered = p->flags & SMOS__EP_FIN_ACKED;
    uint8_t state = answered ? after_acknowledgement(p->state) : p->state;
    if (l->tcp_flags & SMOS__FIN) {
        e->flags |= SMOS__EP_FIN_RECEIVED;
        state = after_fin(state, answered);
    }
    smos__set_state(p, state, &facts, SMOS__TCP_RECEIVER_STATE);
    const uint16_t both = e->flags & p->flags;
    if (both & SMOS__EP_FIN && (both & SMOS__EP_FIN_ACKED || e->state == SMOS_TCP_CLOSED || state == SMOS_TCP_CLOSED)) facts |= SMOS__TCP_CLOSED;
    return facts;
}


uint32_t smos__tcp_ordinary_receiver(smos__tcp_t *t, const smos__layer_t *l, int from, uint32_t facts)
{
    smos__endpoint_t *p = &t->flow->end[!from];
    if (l->tcp_flags & SMOS__SYN) {
        p->state = l->tcp_flags & SMOS__ACK ? SMOS_TCP_ESTABLISHED : SMOS_TCP_SYN_RECEIVED;
        return facts | SMOS__TCP_RECEIVER_STATE;
    }
    if (p->state != SMOS_TCP_SYN_RECEIVED) return closing_received(t, l, from, facts);
    p->state = SMOS_TCP_ESTABLISHED;
    t->flow->flags |= SMOS__FLOW_SETUP;
    return facts | SMOS__TCP_RECEIVER_STATE | SMOS__TCP_SETUP;
}
