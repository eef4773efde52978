/* What handlers are told, and what they see of a packet. */
#include <string.h>

#include "shard/shard.h"

#define FLOW_ANOMALY_EVENTS 16   /* published per flow; the rest is only counted */
#define ANOMALIES_PER_SECOND 1000 /* published in all, per second of packet time */


/* The rest of what handlers see of the packet; its decoder laid out the layer's part where it is. */
static inline void show_frame(smos_shard_t *s)
{
    const smos__frame_t *frame = s->frame;
    smos_packet_t *p = &s->layer->packet;
    memcpy(p, frame, offsetof(smos_packet_t, ip));
    p->number = frame->number;
}


/* What all events of the packet have in common. */
static inline void show(smos_shard_t *s, const smos__flow_t *f, uint32_t flow)
{
    smos_call_t *call = &s->call;
    call->flow = s->crumb->flow = smos__flow_handle(&s->arena, flow);
    call->tuple = &f->tuple;
    call->time_ns = s->now_ns;
    call->existing = (f->flags & SMOS__FLOW_EXISTING) / SMOS__FLOW_EXISTING;
    call->packet = s->events.in_packet ? &s->layer->packet : NULL;
    s->shown = s->events.in_packet ? flow : SMOS__NO_FLOW;
    if (s->events.in_packet) show_frame(s);
}


void smos__show_packet(smos_shard_t *s)
{
    show_frame(s);
    s->call.packet = &s->layer->packet;
}


static inline void raise(smos_shard_t *s, uint32_t flow, uint32_t what, uint32_t detail)
{
    smos_call_t *call = &s->call;
    const smos__flow_t *f = &s->arena.hot[flow];
    if (s->shown != flow) show(s, f, flow);
    call->detail = detail;
    call->event = (uint8_t)what;
    call->side = (uint8_t)(what >> 8);
    call->hook = (uint8_t)(what >> 16);
    smos__events_raise(&s->events, f, flow, call, (uint8_t)what);
}


void smos__raise_wanted(smos_shard_t *s, uint32_t flow, uint32_t what, uint32_t detail)
{
    raise(s, flow, what, detail);
}


void smos__raise_bytes_wanted(smos_shard_t *s, uint32_t flow, uint32_t what, const uint8_t *data, uint64_t length, uint64_t offset, uint32_t detail)
{
    s->call.data = data;
    s->call.length = length;
    s->call.offset = offset;
    raise(s, flow, what, detail);
    s->call.data = NULL;
    s->call.length = s->call.offset = 0;
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
