/* A frame and its layers: whose they are, what of them is followed, and what becomes of the rest. */
#include "shard/shard.h"
#include "tcp/fast.h"


static smos__counter_t disposition_of(uint8_t result)
{
    switch (result) {
    case SMOS__WIRE_FRAGMENT: return SMOS__C_packets_fragment;
    case SMOS__WIRE_NOT_IP: return SMOS__C_drop_not_ip;
    case SMOS__WIRE_TRUNCATED: return SMOS__C_drop_truncated;
    case SMOS__WIRE_LINKTYPE: return SMOS__C_drop_linktype;
    default: return SMOS__C_drop_malformed;
    }
}


/* The frame goes no further into the shard, for a reason that is a drop_ counter. An inline port passes it on all the same unless it was told to
 * refuse such frames: whoever bridges two networks carries what he does not understand. */
smos__counter_t smos__unfollowed(smos_shard_t *s, smos__counter_t why)
{
    if (!s->inline_) return why;
    bool refuse = why == SMOS__C_drop_not_ip ? s->config.refuse & SMOS_REFUSE_NOT_IP
                : why == SMOS__C_drop_malformed || why == SMOS__C_drop_truncated ? s->config.refuse & SMOS_REFUSE_MALFORMED : false;
    if (!refuse) return why - SMOS__C_drop_not_ip + SMOS__C_passed_not_ip;
    s->verdict = SMOS__DROP;
    return why;
}


static bool owns(const smos_shard_t *s, const smos_tuple_t *tuple)
{
    return s->config.workers == 1 || smos__owner(smos__owner_hash(tuple, s->config.owner_seed), s->config.workers) == s->config.worker;
}


/* An ICMP error and the flow it is about, which may belong to another worker than the error itself. It comes before the error's own flow: whoever
 * translates that flow's addresses translates the error too, and where that goes follows from its addresses. */
static void tie_icmp_error(smos_shard_t *s, const smos__frame_t *frame, smos__layer_t *l)
{
    smos_tuple_t quoted = l->quoted;
    if (l->flags & SMOS__BAD_CHECKSUM || frame->flags & SMOS__FRAME_TIED) return;
    if (s->config.key == 0) quoted.vlan = 0, quoted.tunnel = 0;
    if (frame->flags & SMOS__FRAME_REDIRECTED || owns(s, &quoted)) smos__icmp_error(s, frame, l, &quoted);
}


/* Workers hand an ICMP error from one to the next: whoever got it, the owner of the flow that it is about, the owner of its own flow, who counts it and
 * passes it on. True: it is here for the last time, or was dropped here. */
static bool stays(smos_shard_t *s, const smos__frame_t *frame, smos__layer_t *l)
{
    if (frame->flags & SMOS__FRAME_HANDED) SMOS__COUNT(s, packets_taken_over);
    if (frame->flags & SMOS__FRAME_TIED) return true;
    if (!(frame->flags & SMOS__FRAME_REDIRECTED) && !owns(s, &l->quoted)) return smos__handover_give(s, &l->quoted, frame, 0), false;
    tie_icmp_error(s, frame, l);
    return s->verdict == SMOS__DROP || owns(s, &l->tuple) || (smos__handover_give(s, &l->tuple, smos__as_edited(s, frame), SMOS__FRAME_TIED), false);
}


/* Raw sockets see each packet once, before its flow does: the innermost IP packet, or the frame where it holds none that can be read. */
static void raise_raw(smos_shard_t *s, const smos__frame_t *frame, smos__layer_t *l)
{
    smos_packet_t bare;
    s->frame = frame;
    s->layer = l;
    if (l) {
        l->from = SMOS_CLIENT;
        smos__show_frame(s);
    } else {
        bare = (smos_packet_t){.frame = frame->data, .caplen = frame->caplen, .len = frame->len, .time_ns = frame->time_ns, .number = frame->number};
    }
    smos_call_t call = {.packet = l ? &l->packet : &bare, .tuple = l ? &l->tuple : NULL, .time_ns = s->now_ns, .event = SMOS_PKT_IN, .side = SMOS_CLIENT};
    s->events.in_packet = s->in_raw = true;
    s->events.dropped = s->redirected = false;
    smos__events_raise_raw(&s->events, &call, l ? l->ip : NULL, l ? l->ip_len : 0, l ? l->ip_captured : 0);
    s->events.in_packet = s->in_raw = false;
    if (!s->events.dropped) return;
    SMOS__COUNT(s, drop_verdict);
    s->verdict = SMOS__DROP;
}


void smos__process_frame(smos_shard_t *s, smos__frame_t *frame, smos__decoded_t *d, uint32_t first_hash, uint32_t hint)
{
    smos__counter_t disposition = disposition_of(d->result);
    bool filtered = false;
    uint8_t layers = d->layers;
    s->nested = layers > 1;
    smos__layer_t *inner = layers ? &d->layer[layers - 1] : NULL;
    smos__advance_time(s, frame->time_ns);
    if (s->filter && inner) filtered = !smos__filter_match(s->filter, inner->ip, inner->ip_len, inner->ip_captured);
    bool relayed = s->handover && layers == 1 && inner->flags & SMOS__ICMP_ERROR && !filtered && !d->fragments && !(frame->flags & SMOS__FRAME_COPY);
    bool mine = s->config.workers == 1 || (relayed ? stays(s, frame, inner) : s->handover ? smos__handover_route(s, frame, d)
                                           : inner ? owns(s, &inner->tuple) : smos__owner(d->owner_hash, s->config.workers) == s->config.worker);
    if (relayed && !mine) {
        s->verdict = SMOS__DROP; /* here */
        return;
    }
    if (!mine) layers = d->layers, inner = layers ? &d->layer[layers - 1] : NULL;
    if (s->events.raw && mine && !filtered && (inner || !s->filter) && s->verdict != SMOS__DROP) {
        raise_raw(s, smos__as_edited(s, frame), d->result == SMOS__WIRE_OK ? inner : NULL);
        if (s->redirected && s->verdict != SMOS__DROP) { /* who drops has the last word */
            smos__handover_give(s, &s->redirect, smos__as_edited(s, frame), SMOS__FRAME_REDIRECTED);
            s->verdict = SMOS__DROP; /* here */
            return;
        }
    }
    if (mine) {
        for (int k = 0; k < d->anomaly_count; k++) smos__anomaly_raise(s, SMOS__NO_FLOW, d->anomalies[k]);
        SMOS__COUNT(s, packets);
        SMOS__ADD(s, bytes, frame->len);
    }
    if (s->closed && mine) {
        SMOS__COUNT(s, packets_flow);
        SMOS__COUNT(s, drop_resting);
        s->verdict = SMOS__DROP;
        return;
    }
    if (filtered || (s->filter && !inner)) {
        if (mine) s->counters[smos__unfollowed(s, SMOS__C_drop_filtered)]++;
        else s->verdict = SMOS__DROP;
        return;
    }
    if (s->events.raw && mine && s->verdict == SMOS__DROP) {
        SMOS__COUNT(s, packets_flow); /* a module's business, as drop_verdict is */
        return;
    }
    for (uint8_t k = 0; k < layers; k++) {
        smos__layer_t *l = &d->layer[k];
        bool ours = owns(s, &l->tuple) || relayed || frame->flags & SMOS__FRAME_REDIRECTED;
        if (l->flags & SMOS__ICMP_ERROR && !relayed) tie_icmp_error(s, frame, l);
        if (!ours) continue;
        bool dropped = s->verdict == SMOS__DROP;
        if (s->config.key == 0) l->tuple.vlan = 0, l->tuple.tunnel = 0;
        bool readable = d->result == SMOS__WIRE_OK || k < layers - 1 || l->flags & SMOS__L4_WHOLE;
        const bool first = layers == 1 && !s->edits.active;
        const smos__frame_t *as = first ? frame : smos__as_edited(s, frame);
        uint32_t hash = first ? first_hash : smos__table_hash(&s->table, &l->tuple);
        uint32_t at = first ? hint : smos__bucket_hint(smos__table_bucket(&s->table, hash), hash);
        smos__counter_t how = dropped || (readable && smos__tcp_usual(l) && at != SMOS__NO_FLOW && smos__process_plain(s, as, l, at)) ? SMOS__C_packets_flow
                                                                                                       : smos__process_layer(s, as, l, hash, at, readable);
        if (k == layers - 1 && d->result == SMOS__WIRE_OK) disposition = how;
        if (s->verdict == SMOS__DROP) { /* what it carries was dropped with it */
            disposition = how;
            break;
        }
    }
    if (disposition >= SMOS__C_drop_not_ip && disposition <= SMOS__C_drop_no_memory) disposition = smos__unfollowed(s, disposition);
    if (mine && s->datagrams && smos__datagram_waits(frame, d)) {
        SMOS__COUNT(s, packets_joined);
        s->verdict = SMOS__DROP; /* it leaves with the last of them */
    }
    if (mine) s->counters[disposition]++;
    else s->verdict = SMOS__DROP; /* here: its owner passes it on */
}
