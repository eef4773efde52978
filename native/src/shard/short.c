/* The short ways of a TCP segment through a flow that is there: without events that nobody wants, and without asking what only an unusual segment is. */
#include "shard/layer.h"
#include "tcp/fast.h"


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


/* set, epoch, flags and class_ as they lie in memory, in one word; end_reason above them. */
_Static_assert(offsetof(smos__flow_t, epoch) == offsetof(smos__flow_t, set) + 2 && offsetof(smos__flow_t, flags) == offsetof(smos__flow_t, set) + 4 &&
               offsetof(smos__flow_t, class_) == offsetof(smos__flow_t, set) + 6 && offsetof(smos__flow_t, set) % 8 == 0, "read as one word");
#define FLAGS(flags) ((uint64_t)(uint16_t)(flags) << 32)
#define CLASS(class_) ((uint64_t)(class_) << 48)

static inline uint64_t word_of(const smos__flow_t *f)
{
    uint64_t word;
    memcpy(&word, &f->set, sizeof word);
    return word;
}


/* Somebody is to be told of the plain segment, or its bytes are more than to be counted. */
static inline bool plain_heard(const smos_shard_t *s, const smos__flow_t *f, const smos__endpoint_t *e, const smos__layer_t *l, int from)
{
    const smos__set_t *set = &s->events.sets.set[f->set];
    if ((set->mask[SMOS_SENDER][from] | set->mask[SMOS_RECEIVER][from ^ 1]) & SMOS_BIT(SMOS_PKT_IN)) return true;
    if (!l->payload_len) return false;
    if (l->payload_captured != l->payload_len || s->tcp.depth || e->flags & SMOS__EP_STOPPED) return true;
    return f->flags & SMOS__FLOW_STREAM_OF(from) && (set->mask[0][from ^ 1] & SMOS_BIT(SMOS_NEW_DATA) || set->options.history[from ^ 1] || s->config.compare_bytes);
}


/* Nobody is: the same events and bytes are counted. */
static inline void pass_unheard(smos_shard_t *s, const smos__flow_t *f, smos__endpoint_t *e, const smos__layer_t *l, int from)
{
    s->counters[SMOS__C_event_pkt_in + SMOS_PKT_IN] += 2;
    if (!l->payload_len) return;
    e->offset += l->payload_len;
    e->rcv_nxt += l->payload_len;
    if (!(f->flags & SMOS__FLOW_STREAM_OF(from))) return;
    SMOS__ADD(s, stream_bytes, l->payload_len);
    s->counters[SMOS__C_event_pkt_in + SMOS_NEW_DATA]++;
}


/* What tcp/fast.h takes, of an established flow. */
static inline bool process_plain(smos_shard_t *s, const smos__frame_t *frame, smos__layer_t *l, uint32_t i, smos__flow_t *f, int from)
{
    smos__endpoint_t *e = &f->end[from], *p = &f->end[from ^ 1];
    __asm__("" : "+r"(e), "+r"(p)); /* as pointers: worked out again for each field they would take a quarter of the steps */
    if (!smos__tcp_fast(e, p, l, s->now_ns)) return false;
    smos__flow_begin(f);
    count_packet(s, frame, l, f, e);
    SMOS__COUNT(s, flow_packets_tcp);
    SMOS__ADD(s, flow_bytes_tcp, l->ip_len);
    if (__builtin_expect(s->tcp.detail & (SMOS_DETAIL_HISTORY | SMOS_DETAIL_RTT), 0)) note_plain(s, i, l, from);
    if (!plain_heard(s, f, e, l, from)) {
        s->events.crumb.packet = frame->number;
        pass_unheard(s, f, e, l, from);
        smos__flow_commit(f);
        return true;
    }
    const uint32_t came = l->payload_len;
    smos__take_packet(s, i, f, frame, l, from);
    s->sent_before = l->seq;
    smos__set_t *set = smos__raised(s, f, SMOS_PKT_IN, from, SMOS_SENDER);
    if (set) smos__raise_wanted(s, set, SMOS_PKT_IN, SMOS__WHAT(SMOS_PKT_IN, from, SMOS_SENDER)); /* the packet's first event: nobody dropped it yet */
    if (__builtin_expect(s->events.dropped, 0)) {
        unsend(s, l, e);
    } else {
        if (came) pass_plain(s, i, f, e, l, from);
        smos__raise(s, i, SMOS_PKT_IN, from ^ 1, SMOS_RECEIVER);
    }
    leave(s, l, i, f, from, came);
    return true;
}


/* What tcp/ordinary.c takes, where nobody listens. Out of line: the plain way needs the registers. */
static __attribute__((noinline)) bool process_ordinary(smos_shard_t *s, const smos__frame_t *frame, smos__layer_t *l, uint32_t i, smos__flow_t *f, int from)
{
    if (!unheard(s, f) || s->can_send) return false;
    const bool told = s->tcp.detail & SMOS_DETAIL_ANOMALIES;
    smos__flow_begin(f);
    if (told) smos__take_packet(s, i, f, frame, l, from);
    uint32_t facts = smos__tcp_ordinary(under_hand(s, i), l, from);
    if (told) smos__leave_packet(s);
    if (facts) {
        s->events.crumb.packet = frame->number;
        count_packet(s, frame, l, f, &f->end[from]);
        SMOS__COUNT(s, flow_packets_tcp);
        SMOS__ADD(s, flow_bytes_tcp, l->ip_len);
        if (f->end[!from].packets) f->flags |= SMOS__FLOW_TWO_SIDED;
        if (s->tcp.detail & SMOS_DETAIL_HISTORY) note_history(s, i, l, from);
        after_ordinary(s, i, f, facts, false);
    }
    smos__flow_commit(f);
    return facts;
}


bool smos__process_short(smos_shard_t *s, const smos__frame_t *frame, smos__layer_t *l, uint32_t i)
{
    const uint16_t open = SMOS__FLOW_TWO_SIDED | SMOS__FLOW_STARTED_RECEIVER, either = SMOS__FLOW_STREAMS | SMOS__FLOW_SETUP | SMOS__FLOW_EXISTING;
    const uint64_t word = word_of(&s->arena.hot[i]) ^ (uint64_t)s->events.epoch << 16 ^ CLASS(SMOS__CLASS_ESTABLISHED) ^ FLAGS(open), epoch = UINT64_C(0xffff) << 16;
    const uint64_t odd = FLAGS(~(open | either | SMOS__FLOW_QUEUED | SMOS__FLOW_MIDSTREAM)), plain = word & (CLASS(0xff) | FLAGS(~either));
    smos__flow_t *f = &s->arena.hot[i];
    int from;
    if (word & (epoch | odd) || !smos__tuple_match(&f->tuple, &l->tuple, &from) || l->flags & SMOS__BAD_CHECKSUM || l->anomaly_count || smos__flow_expired(s, f, s->now_ns)) return false;
    if (!plain && smos__tcp_usual(l) && process_plain(s, frame, l, i, f, from)) return true;
    const uint64_t class_ = (word ^ CLASS(SMOS__CLASS_ESTABLISHED)) & CLASS(0xff);
    return (class_ == CLASS(SMOS__CLASS_ESTABLISHED) || class_ == CLASS(SMOS__CLASS_EMBRYONIC)) && process_ordinary(s, frame, l, i, f, from);
}
