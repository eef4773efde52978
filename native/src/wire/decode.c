/* decode.c: one frame's walk from its link header inwards; the layers have a file each. */
#include "wire/walk.h"

void smos__note(smos__walk_t *w, smos__anomaly_t anomaly)
{
    uint8_t *count = w->layer ? &w->layer->anomaly_count : &w->out->anomaly_count;
    uint16_t *list = w->layer ? w->layer->anomalies : w->out->anomalies;
    for (int i = 0; i < *count; i++)
        if (list[i] == anomaly) return;
    if (*count < SMOS__MAX_ANOMALIES) list[(*count)++] = (uint16_t)anomaly;
}

void smos__end(smos__walk_t *w, smos__wire_result_t result)
{
    if (w->out->layers && (result == SMOS__WIRE_NOT_IP || (w->guess && result != SMOS__WIRE_FRAGMENT))) result = SMOS__WIRE_OK;
    w->out->result = result;
}

void smos__short(smos__walk_t *w, smos__span_t s, uint32_t need, smos__anomaly_t anomaly)
{
    if (s.wire < need) smos__note(w, anomaly);
    smos__end(w, s.wire < need ? SMOS__WIRE_MALFORMED : SMOS__WIRE_TRUNCATED);
}

int smos__deeper(smos__walk_t *w)
{
    if (w->depth++ < SMOS__MAX_DEPTH) return 1;
    smos__note(w, SMOS__ANOMALY_NESTING_TOO_DEEP);
    smos__end(w, SMOS__WIRE_MALFORMED);
    return 0;
}

smos__layer_t *smos__layer_begin(smos__walk_t *w, smos__span_t s)
{
    if (w->out->layers == SMOS__MAX_LAYERS) {
        smos__note(w, SMOS__ANOMALY_NESTING_TOO_DEEP);
        smos__end(w, SMOS__WIRE_OK);
        return NULL;
    }
    smos__layer_t *l = &w->out->layer[w->out->layers];
    l->ip = s.at;
    l->l4 = l->payload = NULL;
    l->payload_captured = l->payload_len = 0;
    l->seq = l->ack = 0;
    l->window = l->urgent = l->mss = 0;
    l->tcp_flags = l->wscale = l->sack_blocks = 0;
    l->icmp_type = l->icmp_code = 0;
    l->anomaly_count = 0;
    l->flags = w->layer_flags;
    l->vlan[0] = l->tuple.vlan = w->vlan[0];
    l->vlan[1] = w->vlan[1];
    l->tunnel_kind = w->tunnel_kind;
    l->tunnel_id = l->tuple.tunnel = w->tunnel_id;
    l->tuple.sport = l->tuple.dport = 0;
    w->layer = l;
    return l;
}

void smos__layer_abandon(smos__walk_t *w)
{
    const smos__layer_t *l = w->layer;
    w->layer = NULL;
    if (l == NULL || l != &w->out->layer[w->out->layers]) return; /* it was kept */
    for (int i = 0; i < l->anomaly_count; i++) smos__note(w, l->anomalies[i]);
}

int smos__linktype_supported(uint32_t linktype)
{
    smos__decoded_t out;
    smos__frame_t frame = { .data = (const uint8_t *)"", .linktype = (uint16_t)linktype };
    if (linktype > UINT16_MAX) return 0;
    smos__decode(&frame, NULL, &out);
    return out.result != SMOS__WIRE_LINKTYPE;
}

void smos__decode(const smos__frame_t *frame, smos__defrag_t *defrag, smos__decoded_t *out)
{
    smos__walk_t w = { .frame = frame, .defrag = defrag, .out = out };
    smos__span_t s = { frame->data, frame->caplen, frame->len < frame->caplen ? frame->caplen : frame->len };
    out->layers = out->anomaly_count = out->fragments = 0;
    out->owner_hash = 0;
    out->waits = false;
    out->result = SMOS__WIRE_NOT_IP;
    if (__builtin_expect(frame->linktype == 1, 1))
        smos__ethernet(&w, s);
    else
        smos__link(&w, s, frame->linktype);
    if (w.layer != NULL) smos__layer_abandon(&w);
}
