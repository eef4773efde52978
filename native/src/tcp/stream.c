/* Delivery of one direction's bytes: in-order payload straight from the packet, the rest through the assembler. */
#include "tcp/tcp.h"

#include <string.h>


/* Forward by `length` bytes that the receiver got. */
static void deliver(smos__tcp_t *t, int from, const uint8_t *data, uint32_t length)
{
    smos__endpoint_t *e = &t->flow->end[from];
    uint64_t offset = e->offset;
    e->offset += length;
    e->rcv_nxt += length;
    if (t->config->depth && offset + length > t->config->depth) {
        if (!(e->flags & SMOS__EP_STOPPED)) {
            e->flags |= SMOS__EP_STOPPED;
            smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_DEPTH);
            t->sink->error(t->context, !from, SMOS_ERR_DEPTH);
        }
        if (offset >= t->config->depth) {
            t->cold->end[from].skipped += length;
            return;
        }
        uint32_t within = (uint32_t)(t->config->depth - offset);
        t->cold->end[from].skipped += length - within;
        length = within;
    }
    t->sink->data(t->context, !from, data, length, offset);
}


typedef enum { NOBODY_KNOWS, ACKNOWLEDGED, CUT_BY_SNAPLEN, OMITTED } skip_reason_t;

static skip_reason_t acknowledged_to(const smos__endpoint_t *e, uint32_t seq)
{
    return e->flags & SMOS__EP_ACKED && smos__seq_geq(e->snd_una, seq) ? ACKNOWLEDGED : NOBODY_KNOWS;
}


/* Forward over `length` bytes that will never come. */
static void skip(smos__tcp_t *t, int from, uint64_t length, skip_reason_t reason)
{
    smos__endpoint_t *e = &t->flow->end[from];
    smos__endpoint_cold_t *c = &t->cold->end[from];
    uint64_t offset = e->offset;
    e->offset += length;
    e->rcv_nxt += (uint32_t)length;
    c->skipped += length;
    bool missed = reason == ACKNOWLEDGED || reason == CUT_BY_SNAPLEN;
    if (missed && t->config->detail & SMOS_DETAIL_HISTORY) {
        if (reason == ACKNOWLEDGED)
            missed = smos__zeek_gap(&t->conn->zeek, t->conn->history, from);
        else
            missed = smos__zeek_hole(&t->conn->zeek, from);
    }
    if (missed) smos__add_missing(c, length);
    if (reason != OMITTED) smos__tcp_anomaly(t, SMOS__ANOMALY_TCP_GAP);
    t->sink->gap(t->context, !from, offset, length);
}


/* Whether what is held at the segment's place is the same. */
static void compare(smos__tcp_t *t, int from, const smos__assembler_t *held, uint64_t start, const uint8_t *data, uint32_t captured)
{
    uint8_t copies[2 * SMOS__CONFLICT_MAX];
    uint64_t first = 0;
    if (!held->bytes || !smos__assembler_compare(held, t->pool, start, data, captured, &first)) return;
    t->cold->end[from].conflicts++;
    uint64_t rest = start + captured - first;
    uint32_t length = smos__assembler_read(held, t->pool, first, copies, rest < SMOS__CONFLICT_MAX ? (uint32_t)rest : SMOS__CONFLICT_MAX);
    memcpy(copies + length, data + (first - start), length);
    const smos__conflict_t conflict = {.offset = first, .copies = copies, .length = length};
    t->sink->conflict(t->context, &conflict);
}


/* Before the segment counts: with what waits. */
static void tell_conflicts(smos__tcp_t *t, int from, uint64_t start, const uint8_t *data, uint32_t captured)
{
    compare(t, from, &t->cold->end[from].assembler, start, data, captured);
}


/* With what was delivered, as far as it is kept. A keepalive's byte (RFC 1122 4.2.3.6) may be any. */
static void tell_late_conflicts(smos__tcp_t *t, int from, uint32_t seq, const uint8_t *data, uint32_t captured, uint32_t length)
{
    const smos__endpoint_t *e = &t->flow->end[from];
    const smos__assembler_t *kept = t->sink->kept(t->context, !from);
    const uint32_t old = e->rcv_nxt - seq;
    if (!kept || (length == 1 && old == 1 && e->flags & SMOS__EP_ACKED && smos__seq_geq(e->snd_una, e->rcv_nxt))) return;
    const uint32_t before = old > e->offset ? old - (uint32_t)e->offset : 0; /* what lies before the stream's first byte */
    const uint32_t n = old < captured ? old : captured;
    if (n > before) compare(t, from, kept, e->offset - (old - before), data + before, n - before);
}


static int overlap_of(const smos__tcp_t *t, int from)
{
    uint8_t asked = t->options->overlap[!from];
    if (asked != SMOS__DEFAULT_POLICY) return asked;
    uint8_t network = t->cold->end[from].overlap;
    return network ? network - 1 : t->config->overlap_policy;
}


static uint32_t buffer_of(const smos__tcp_t *t, int from)
{
    uint32_t asked = t->options->buffer[!from];
    return asked == SMOS__DEFAULT ? t->config->flow_buffer : asked;
}


/* Whatever is buffered at rcv_nxt. SMOS__EP_HOLE says in the hot record whether anything is. */
static void drain(smos__tcp_t *t, int from)
{
    smos__endpoint_t *e = &t->flow->end[from];
    smos__assembler_t *a = &t->cold->end[from].assembler;
    const uint8_t *data;
    uint64_t offset;
    uint32_t length;
    while ((length = smos__assembler_front(a, t->pool, &offset, &data)) && offset <= e->offset) {
        if (offset + length > e->offset) {
            uint32_t old = (uint32_t)(e->offset - offset);
            deliver(t, from, data + old, length - old);
        }
        smos__assembler_trim(a, t->pool, e->offset);
    }
    if (!length) e->flags &= (uint16_t)~SMOS__EP_HOLE;
}


/* Gives the first hole up. */
static void skip_to_front(smos__tcp_t *t, int from)
{
    smos__endpoint_t *e = &t->flow->end[from];
    const uint8_t *data;
    uint64_t offset;
    if (!smos__assembler_front(&t->cold->end[from].assembler, t->pool, &offset, &data) || offset <= e->offset) return;
    uint32_t front = e->rcv_nxt + (uint32_t)(offset - e->offset);
    skip(t, from, offset - e->offset, acknowledged_to(e, front));
    drain(t, from);
}


/* The segment begins at rcv_nxt and something is buffered: where both hold bytes, the policy says whose count. */
static void deliver_over_buffer(smos__tcp_t *t, int from, const uint8_t *data, uint32_t captured)
{
    smos__endpoint_t *e = &t->flow->end[from];
    smos__assembler_t *a = &t->cold->end[from].assembler;
    uint64_t start = e->offset, end = start + captured;
    tell_conflicts(t, from, start, data, captured);
    while (e->offset < end) {
        bool packet;
        uint32_t at = (uint32_t)(e->offset - start);
        uint32_t n = smos__assembler_winner(a, t->pool, start, captured, e->offset, overlap_of(t, from), &packet);
        const uint8_t *bytes = data + at;
        if (!packet) {
            uint64_t offset;
            uint32_t length = smos__assembler_front(a, t->pool, &offset, &bytes);
            if (length < n) n = length;
        }
        deliver(t, from, bytes, n);
        smos__assembler_trim(a, t->pool, e->offset);
    }
}


static void in_order(smos__tcp_t *t, int from, const uint8_t *data, uint32_t captured, uint32_t length)
{
    smos__endpoint_t *e = &t->flow->end[from];
    if (!(e->flags & SMOS__EP_HOLE)) { /* nothing waits: the cold record is not even looked at */
        if (captured) deliver(t, from, data, captured);
        if (length > captured) skip(t, from, length - captured, CUT_BY_SNAPLEN);
        return;
    }
    deliver_over_buffer(t, from, data, captured);
    if (length > captured) {
        uint64_t end = e->offset + (length - captured);
        const uint8_t *buffered;
        uint64_t offset;
        drain(t, from);
        while (e->offset < end) {
            uint32_t n = smos__assembler_front(&t->cold->end[from].assembler, t->pool, &offset, &buffered);
            skip(t, from, (n && offset < end ? offset : end) - e->offset, CUT_BY_SNAPLEN);
            drain(t, from);
        }
    }
    drain(t, from);
}


/* A stream that is left alone holds nothing. */
static void forget_if_stopped(smos__tcp_t *t, int from)
{
    smos__endpoint_t *e = &t->flow->end[from];
    if (!(e->flags & SMOS__EP_STOPPED) || !(e->flags & SMOS__EP_HOLE)) return;
    smos__assembler_clear(&t->cold->end[from].assembler, t->pool);
    e->flags &= (uint16_t)~SMOS__EP_HOLE;
}


/* Moves the place of what is expected without a look at the bytes between. */
static void pass_over(smos__tcp_t *t, int from, uint32_t length)
{
    smos__endpoint_t *e = &t->flow->end[from];
    e->offset += length;
    e->rcv_nxt += length;
    if (e->flags & SMOS__EP_STOPPED) t->cold->end[from].skipped += length;
}


static uint32_t since_start_ms(const smos__tcp_t *t) { return (uint32_t)((t->now_ns - t->cold->start_ns) / 1000000); }


/* How much may wait behind a hole that the capture has and, perhaps, the receiver too. If it does (RFC 6675), its peer sends those bytes again, and only the
 * buffer's own bounds and time end the wait. */
static void limits(smos__tcp_t *t, int from)
{
    smos__assembler_t *a = &t->cold->end[from].assembler;
    uint32_t now_ms = since_start_ms(t);
    while (a->bytes && ((t->config->gap_bytes && a->bytes > t->config->gap_bytes) || (t->config->gap_segments && a->segments > t->config->gap_segments))) {
        if (smos__tcp_lost(t, from, t->flow->end[from].rcv_nxt)) break;
        skip_to_front(t, from);
    }
    if (a->bytes && t->config->gap_ns && (int64_t)(now_ms - t->cold->end[from].hole_ms) * 1000000 > t->config->gap_ns) {
        skip_to_front(t, from);
        t->cold->end[from].hole_ms = now_ms;
    }
}


static void give_way(smos__tcp_t *t, int from, uint32_t seq, const uint8_t *data, uint32_t captured, uint32_t length)
{
    smos__endpoint_t *e = &t->flow->end[from];
    const smos__assembler_t *a = &t->cold->end[from].assembler;
    while (a->bytes && smos__seq_gt(seq, e->rcv_nxt)) skip_to_front(t, from);
    if (smos__seq_lt(e->rcv_nxt, seq)) skip(t, from, seq - e->rcv_nxt, acknowledged_to(e, seq));
    uint32_t old = e->rcv_nxt - seq;
    if (old < captured) in_order(t, from, data + old, captured - old, length - old);
}


static void out_of_order(smos__tcp_t *t, int from, uint32_t seq, const uint8_t *data, uint32_t captured, uint32_t length)
{
    smos__endpoint_t *e = &t->flow->end[from];
    smos__assembler_t *a = &t->cold->end[from].assembler;
    /* The receiver has acknowledged the hole: it has the bytes, the capture does not. */
    if (e->flags & SMOS__EP_ACKED && smos__seq_gt(e->snd_una, e->rcv_nxt) && !(e->flags & SMOS__EP_HOLE) && smos__seq_geq(e->snd_una, seq)) {
        skip(t, from, seq - e->rcv_nxt, ACKNOWLEDGED);
        in_order(t, from, data, captured, length);
        return;
    }
    if (!captured) return;
    const uint32_t most = buffer_of(t, from);
    if (!most) { /* nobody wants to wait for what is missing; what waits already, since somebody did, comes first */
        while (a->bytes && smos__seq_gt(seq, e->rcv_nxt)) skip_to_front(t, from);
        if (smos__seq_gt(seq, e->rcv_nxt)) skip(t, from, seq - e->rcv_nxt, NOBODY_KNOWS);
        uint32_t old = e->rcv_nxt - seq;
        if (old < captured) in_order(t, from, data + old, captured - old, length - old);
        return;
    }
    smos__insert_result_t r;
    uint64_t offset = e->offset + (seq - e->rcv_nxt);
    tell_conflicts(t, from, offset, data, captured);
    if (!(t->flow->flags & SMOS__FLOW_STREAM_OF(from))) { /* who was told has stopped listening */
        pass_over(t, from, seq + length - e->rcv_nxt);
        return;
    }
    smos__assembler_insert(a, t->pool, offset, data, captured, overlap_of(t, from), most, t->config->flow_segments, &r);
    if (a->bytes && !(e->flags & SMOS__EP_HOLE)) {
        e->flags |= SMOS__EP_HOLE;
        t->cold->end[from].hole_ms = since_start_ms(t);
    }
    if (r.full) {
        bool flow = a->bytes + captured - r.stored > most || a->segments >= t->config->flow_segments;
        smos__tcp_anomaly(t, flow ? SMOS__ANOMALY_TCP_INSERT_LIMIT : SMOS__ANOMALY_TCP_INSERT_MEMORY);
        t->sink->error(t->context, !from, flow ? SMOS_ERR_FLOW_BUFFER : SMOS_ERR_WORKER_BUFFER);
        switch (flow ? t->config->flow_full : t->config->worker_full) {
        case SMOS_FULL_REFUSE:
            break;
        case SMOS_FULL_STOP:
            e->flags |= SMOS__EP_STOPPED;
            smos__assembler_clear(a, t->pool);
            e->flags &= (uint16_t)~SMOS__EP_HOLE;
            pass_over(t, from, seq + length - e->rcv_nxt);
            return;
        default: /* room is made by giving holes up, oldest first; then this segment fits or is in order */
            give_way(t, from, seq, data, captured, length);
            return;
        }
    }
    if (e->flags & SMOS__EP_ACKED && smos__seq_gt(e->snd_una, e->rcv_nxt)) smos__stream_acked(t, from);
    limits(t, from);
}


void smos__stream_segment(smos__tcp_t *t, int from, uint32_t seq, const uint8_t *data, uint32_t captured, uint32_t length)
{
    smos__endpoint_t *e = &t->flow->end[from];
    int32_t ahead = smos__seq_diff(seq + length, e->rcv_nxt);
    if (__builtin_expect(smos__seq_lt(seq, e->rcv_nxt), 0) && captured && !(e->flags & SMOS__EP_STOPPED)) tell_late_conflicts(t, from, seq, data, captured, length);
    if (ahead <= 0) return; /* nothing new */
    if (!(t->flow->flags & SMOS__FLOW_STREAM_OF(from)) || e->flags & SMOS__EP_STOPPED) {
        pass_over(t, from, (uint32_t)ahead);
        return;
    }
    uint32_t old = e->rcv_nxt - seq;
    if (smos__seq_leq(seq, e->rcv_nxt)) {
        uint32_t cut = old < captured ? old : captured;
        in_order(t, from, cut < captured ? data + cut : NULL, captured - cut, length - old);
    } else {
        out_of_order(t, from, seq, data, captured, length);
    }
    forget_if_stopped(t, from);
}


void smos__stream_omit(smos__tcp_t *t, int from, uint32_t seq)
{
    const smos__endpoint_t *e = &t->flow->end[from];
    if (t->flow->flags & SMOS__FLOW_STREAM_OF(from) && !(e->flags & SMOS__EP_STOPPED) && seq == e->rcv_nxt && !(e->flags & SMOS__EP_HOLE))
        skip(t, from, 1, OMITTED);
    else
        smos__stream_segment(t, from, seq, NULL, 0, 1);
}


void smos__stream_acked(smos__tcp_t *t, int from)
{
    smos__endpoint_t *e = &t->flow->end[from];
    const uint8_t *data;
    uint64_t offset;
    while (smos__seq_gt(e->snd_una, e->rcv_nxt) && smos__assembler_front(&t->cold->end[from].assembler, t->pool, &offset, &data)) {
        uint64_t acked = e->offset + (e->snd_una - e->rcv_nxt);
        skip(t, from, (acked < offset ? acked : offset) - e->offset, ACKNOWLEDGED);
        drain(t, from);
    }
    forget_if_stopped(t, from);
    /* Nothing waits behind it. Whoever records both directions of a wire may see an acknowledgement before the data: then it waits for these. */
    if (!t->config->gaps_at_once || !e->packets || e->flags & (SMOS__EP_STOPPED | SMOS__EP_SYN_DATA) || !(e->flags & SMOS__EP_BASE)) return;
    uint32_t end = e->snd_una - (e->flags & SMOS__EP_FIN && e->snd_una == t->cold->end[from].fin_seq + 1);
    if (!smos__seq_gt(end, e->rcv_nxt)) return;
    if (t->flow->flags & SMOS__FLOW_STREAM_OF(from))
        skip(t, from, end - e->rcv_nxt, ACKNOWLEDGED);
    else
        pass_over(t, from, end - e->rcv_nxt);
}


void smos__stream_syn_data(smos__tcp_t *t, int from, bool accepted)
{
    smos__endpoint_t *e = &t->flow->end[from];
    e->flags &= (uint16_t)~SMOS__EP_SYN_DATA;
    if (!accepted) smos__assembler_clear(&t->cold->end[from].assembler, t->pool);
    drain(t, from);
}


void smos__stream_finish(smos__tcp_t *t, int from)
{
    smos__endpoint_t *e = &t->flow->end[from];
    smos__endpoint_cold_t *c = &t->cold->end[from];
    if (!(e->flags & SMOS__EP_BASE)) return;
    if (e->flags & SMOS__EP_SYN_DATA) smos__stream_syn_data(t, from, true);
    if (e->flags & SMOS__EP_STOPPED) return;
    while (e->flags & SMOS__EP_HOLE && c->assembler.bytes) {
        uint32_t before = c->assembler.bytes;
        drain(t, from);
        skip_to_front(t, from);
        if (c->assembler.bytes == before) break;
    }
    if (!(t->flow->flags & SMOS__FLOW_STREAM_OF(from)) || !e->packets || e->flags & SMOS__EP_STOPPED) return; /* what was never heard is not missed */
    uint32_t end = e->rcv_nxt;
    if (e->flags & SMOS__EP_FIN) end = smos__seq_max(end, c->fin_seq);
    bool acked = e->flags & SMOS__EP_ACKED && smos__seq_gt(e->snd_una, e->rcv_nxt);
    if (acked) end = smos__seq_max(end, e->snd_una - (e->flags & SMOS__EP_FIN && e->snd_una == c->fin_seq + 1));
    if (end != e->rcv_nxt) skip(t, from, end - e->rcv_nxt, acknowledged_to(e, end));
}
