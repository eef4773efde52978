/* layer.h: what layer.c and short.c share: one packet under the hand, and its flow. */
#ifndef SMOS__LAYER_H
#define SMOS__LAYER_H

#include <string.h>

#include "shard/shard.h"

/* Good until the packet's next event: a handler may change the flow's set. */
static inline smos__tcp_t *under_hand(smos_shard_t *s, uint32_t i)
{
    smos__tcp_t *t = &s->under;
    t->flow = &s->arena.hot[i];
    t->cold = &s->arena.cold[i];
    t->options = &s->events.sets.set[t->flow->set].options;
    t->now_ns = s->now_ns;
    return t;
}


/* Data that was dropped on its way never was sent, as far as its receiver is concerned: when it comes again it is new, and can be edited. */
static inline void unsend(smos_shard_t *s, const smos__layer_t *l, smos__endpoint_t *sender)
{
    if (l->payload_len && !(l->tcp_flags & (SMOS__SYN | SMOS__FIN | SMOS__RST))) sender->snd_nxt = s->sent_before;
}


static inline void note_history(smos_shard_t *s, uint32_t i, const smos__layer_t *l, int from)
{
    smos__flow_cold_t *c = &s->arena.cold[i];
    smos__zeek_segment_t z = {l->seq, l->ack, l->payload_len, l->window, l->tcp_flags, (uint8_t)from};
    smos__zeek_segment(&c->zeek, c->history, &z);
}


static inline void count_packet(smos_shard_t *s, const smos__frame_t *frame, const smos__layer_t *l, smos__flow_t *f, smos__endpoint_t *e)
{
    e->packets++;
    e->payload_bytes += l->payload_len;
    e->wire_bytes += frame->len;
    f->last_ns = s->now_ns; /* not the frame's own time, which may lie in the past */
    if (!(l->flags & SMOS__UNCHECKED)) SMOS__COUNT(s, checksum_checked);
}


/* What the segment did to the flow: the timeout that applies from now on, and how it ended. */
void smos__tcp_timeout_class(smos_shard_t *, uint32_t flow, uint32_t facts);


/* Nobody listens to what happens between the sender's step and the receiver's. */
static inline bool unheard(const smos_shard_t *s, const smos__flow_t *f)
{
    const uint32_t between = SMOS_BIT(SMOS_PKT_IN) | SMOS_BIT(SMOS_CONN_START) | SMOS_BIT(SMOS_CONN_SETUP) | SMOS_BIT(SMOS_REXMIT) | SMOS_BIT(SMOS_STATE_CHANGE) | SMOS_BIT(SMOS_ANOMALY);
    const smos__set_t *set = &s->events.sets.set[f->set];
    uint64_t sides[3]; /* both masks of a hook */
    memcpy(sides, set->mask, sizeof sides);
    return !((sides[0] | sides[1] | sides[2]) & (between | (uint64_t)between << 32));
}


/* smos__tcp_ordinary took the segment: events are counted as if they were raised. */
static inline void after_ordinary(smos_shard_t *s, uint32_t i, smos__flow_t *f, uint32_t facts, bool fresh)
{
    s->counters[SMOS__C_event_pkt_in + SMOS_PKT_IN] += 2;
    s->counters[SMOS__C_event_pkt_in + SMOS_STATE_CHANGE] += !!(facts & SMOS__TCP_SENDER_STATE) + (uint64_t)!!(facts & SMOS__TCP_RECEIVER_STATE);
    s->counters[SMOS__C_event_pkt_in + SMOS_CONN_SETUP] += !!(facts & SMOS__TCP_SETUP);
    s->counters[SMOS__C_event_pkt_in + SMOS_CONN_START] += fresh + (uint64_t)!(f->flags & SMOS__FLOW_STARTED_RECEIVER);
    f->flags |= SMOS__FLOW_STARTED_RECEIVER;
    if (f->class_ == SMOS__CLASS_EMBRYONIC || facts & SMOS__TCP_CLOSED || f->flags & SMOS__FLOW_QUEUED) smos__tcp_timeout_class(s, i, facts);
}


void smos__leave_changed(smos_shard_t *, smos__layer_t *, uint32_t flow, int from, uint32_t came);

/* Its handlers were called: what they did to the packet and its flow comes true. `came`: bytes of payload that it came with. */
static inline void leave(smos_shard_t *s, smos__layer_t *l, uint32_t i, smos__flow_t *f, int from, uint32_t came)
{
    if (__builtin_expect(s->edits.active | s->events.dropped | (f->flags & (SMOS__FLOW_EDITED | SMOS__FLOW_RESET)), 0)) {
        smos__leave_changed(s, l, i, from, came);
        return;
    }
    smos__leave_packet(s);
    smos__flow_commit(f);
}

#endif
