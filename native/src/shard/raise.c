/* What handlers are told, and what they see of a packet. */
#include <string.h>

#include "shard/shard.h"

#define FLOW_ANOMALY_EVENTS 16   /* published per flow; the rest is only counted */
#define ANOMALIES_PER_SECOND 1000 /* published in all, per second of packet time */


/* The rest of what handlers see of the packet; its decoder laid out the layer's part where it is. */
static inline void show_frame(const smos__frame_t *frame, smos_packet_t *p) { memcpy(p, frame, offsetof(smos_packet_t, ip)); }


void smos__show_frame(smos_shard_t *s)
{
    show_frame(s->frame, &s->layer->packet);
    s->layer->packet.number = s->frame->number;
}


_Static_assert(offsetof(smos__flow_t, tuple) == 0, "who has the tuple has the flow");

static inline const smos__flow_t *flow_of(const smos_call_t *call) { return (const smos__flow_t *)(const void *)call->tuple; }


static inline void show_flow(smos_shard_t *s, uint32_t flow)
{
    s->events.call.flow = s->events.crumb.flow = (uint64_t)(flow_of(&s->events.call)->generation >> 1) << 32 | flow;
}


/* What all events of the packet have in common. */
static inline void show_packet(smos_shard_t *s)
{
    if (__builtin_expect(s->events.call.packet != NULL, 0)) return;
    s->events.call.packet = &s->layer->packet;
    show_frame(s->frame, &s->layer->packet);
    show_flow(s, s->flow);
}


/* The same, or what events of a flow have in common that no packet causes. */
static inline void show(smos_shard_t *s, uint32_t flow)
{
    if (__builtin_expect(s->events.in_packet, 1)) {
        show_packet(s);
        return;
    }
    s->events.call.tuple = &s->arena.hot[flow].tuple;
    show_flow(s, flow);
}


static inline void raise(smos_shard_t *s, smos__set_t *set, size_t event, uint32_t what)
{
    smos_call_t *call = &s->events.call;
    call->event = (uint8_t)what;
    call->side = (uint8_t)(what >> 8);
    call->hook = (uint8_t)(what >> 16);
    call->existing = (uint8_t)(what >> 24);
    if (__builtin_expect(flow_of(call)->flags & SMOS__FLOW_EXISTING, 0)) {
        call->existing = 1;
        __atomic_signal_fence(__ATOMIC_SEQ_CST); /* else all pay for it */
    }
    set->dispatch[event](&s->events, set, event);
}


void smos__raise_wanted(smos_shard_t *s, smos__set_t *set, size_t event, uint32_t what)
{
    show_packet(s);
    raise(s, set, event, what);
}


void smos__raise_detail_wanted(smos_shard_t *s, smos__set_t *set, uint32_t flow, uint32_t what, uint32_t detail)
{
    if (__builtin_expect(s->events.dropped, 0) && s->events.in_packet) return;
    show(s, flow);
    s->events.call.detail = detail;
    raise(s, set, (uint8_t)what, what);
    s->events.call.detail = 0;
}


void smos__raise_bytes_wanted(smos_shard_t *s, smos__set_t *set, uint32_t flow, uint32_t what, const uint8_t *data, uint64_t length, uint64_t offset, uint32_t detail)
{
    smos_call_t *call = &s->events.call;
    if (__builtin_expect(s->events.dropped, 0) && s->events.in_packet) return;
    show(s, flow);
    call->data = data;
    call->length = length;
    call->offset = offset;
    call->detail = detail;
    raise(s, set, (uint8_t)what, what);
    call->data = NULL;
    call->length = call->offset = 0;
    call->detail = 0;
}


void smos__conflict_raise(smos_shard_t *s, uint32_t flow, uint32_t anomaly, const smos__conflict_t *conflict)
{
    if (!(s->tcp.detail & SMOS_DETAIL_ANOMALIES)) return;
    s->counters[SMOS__C_FIXED + anomaly]++;
    if (flow == SMOS__NO_FLOW) return;
    smos__flow_cold_t *c = &s->arena.cold[flow];
    c->anomalies++;
    if (s->config.publish & SMOS_PUBLISH_ANOMALIES && c->published < FLOW_ANOMALY_EVENTS) {
        int64_t second = s->now_ns / 1000000000;
        if (second != s->anomaly_second) {
            s->anomaly_second = second;
            s->anomaly_budget = ANOMALIES_PER_SECOND;
        }
        if (s->anomaly_budget) {
            s->anomaly_budget--;
            c->published++;
            smos__outbox_anomaly(&s->outbox, s->now_ns, smos__anomaly_name(anomaly), smos__flow_handle(&s->arena, flow), &s->arena.hot[flow].tuple, conflict);
        }
    }
    int side = s->events.in_packet ? s->layer->from : SMOS_CLIENT;
    if (conflict)
        smos__raise_bytes(s, flow, SMOS_ANOMALY, side, SMOS_NO_HOOK, conflict->copies, conflict->length, conflict->offset, anomaly);
    else
        smos__raise_detail(s, flow, SMOS_ANOMALY, side, SMOS_NO_HOOK, anomaly);
}


void smos__anomaly_raise(smos_shard_t *s, uint32_t flow, uint32_t anomaly) { smos__conflict_raise(s, flow, anomaly, NULL); }
