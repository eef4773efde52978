/* What handlers are told, and what they see of a packet. */
#include <string.h>

#include "shard/shard.h"

#define TCP 6
#define FLOW_ANOMALY_EVENTS 16   /* published per flow; the rest is only counted */
#define ANOMALIES_PER_SECOND 1000 /* published in all, per second of packet time */


#define COPIED_FRAME (offsetof(smos_packet_t, ip) - offsetof(smos_packet_t, frame))
#define COPIED_LAYER (offsetof(smos_packet_t, from) - offsetof(smos_packet_t, ip))
#define SAME(field) (offsetof(smos_packet_t, field) - offsetof(smos_packet_t, ip) == offsetof(smos__layer_t, field) - offsetof(smos__layer_t, ip))
_Static_assert(SAME(payload) && SAME(ip_len) && SAME(seq) && SAME(urgent) && SAME(tcp_flags), "copied in one piece");
_Static_assert(offsetof(smos__frame_t, time_ns) == offsetof(smos_packet_t, time_ns) && offsetof(smos__frame_t, len) == offsetof(smos_packet_t, len), "so is the frame");

static void fill_packet(smos_shard_t *s)
{
    const smos__frame_t *frame = s->frame;
    const smos__layer_t *l = s->layer;
    smos_packet_t *p = &s->packet;
    memcpy(p, frame, COPIED_FRAME);
    memcpy(&p->ip, &l->ip, COPIED_LAYER);
    p->from = (uint8_t)s->from;
    p->number = frame->number;
    if (__builtin_expect(l->tuple.proto != TCP, 0)) p->seq = p->ack = p->window = p->urgent = p->tcp_flags = 0;
}


/* What all events of the packet have in common. */
static inline void show(smos_shard_t *s, const smos__flow_t *f, uint32_t flow)
{
    smos_call_t *call = &s->call;
    call->flow = s->crumb->flow = smos__flow_handle(&s->arena, flow);
    call->tuple = &f->tuple;
    call->time_ns = s->now_ns;
    call->existing = (f->flags & SMOS__FLOW_EXISTING) / SMOS__FLOW_EXISTING;
    call->packet = s->events.in_packet ? &s->packet : NULL;
    s->shown = s->events.in_packet ? flow : SMOS__NO_FLOW;
    if (s->events.in_packet) fill_packet(s);
}


void smos__show_packet(smos_shard_t *s)
{
    fill_packet(s);
    s->call.packet = &s->packet;
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
    int side = s->events.in_packet ? s->from : SMOS_CLIENT;
    if (conflict)
        smos__raise_bytes(s, flow, SMOS_ANOMALY, side, SMOS_NO_HOOK, conflict->copies, conflict->length, conflict->offset, anomaly);
    else
        smos__raise_detail(s, flow, SMOS_ANOMALY, side, SMOS_NO_HOOK, anomaly);
}


void smos__anomaly_raise(smos_shard_t *s, uint32_t flow, uint32_t anomaly) { smos__conflict_raise(s, flow, anomaly, NULL); }
