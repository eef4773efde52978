/* A SYN within a connection that has not ended, as far as this side saw. It is refused (RFC 5961 4), and noted: if the other end acknowledges it,
 * with its SYN/ACK, a RST, or whatever the capture has of it, that end knows no older connection any more. Then another flow begins, and has the SYN that was counted with the one before. */
#include "shard/shard.h"

#define NEAR (1u << 20) /* a number this close to the connection's own may be acknowledged without being a SYN's, or be that of its own SYN, which comes late */


static bool near(const smos__endpoint_t *e, uint32_t seq)
{
    const uint32_t low = (e->flags & SMOS__EP_ACKED ? e->snd_una : e->isn) - NEAR;
    return seq - low <= e->snd_nxt + NEAR - low;
}


void smos__reuse_note(smos_shard_t *s, uint32_t i, const smos__layer_t *l, int from)
{
    smos__flow_t *f = &s->arena.hot[i];
    const smos__endpoint_t *e = &f->end[from];
    if (s->edits.aliases.count) return; /* its answer may come by another name, which is none to begin a flow with */
    if ((l->tcp_flags & (SMOS__SYN | SMOS__ACK | SMOS__FIN)) != SMOS__SYN || f->flags & SMOS__FLOW_EDITED || !(e->flags & SMOS__EP_BASE) || l->seq == e->isn) return;
    if (near(e, l->seq)) return;
    const uint64_t handle = smos__flow_handle(&s->arena, i);
    smos__late_syn_t *syn = NULL;
    for (int k = 0; k < SMOS__LATE_SYNS && !syn; k++)
        if (s->late_syns[k].flow == handle && s->late_syns[k].from == from && s->late_syns[k].layer.seq == l->seq) syn = &s->late_syns[k];
    if (!syn) {
        syn = &s->late_syns[s->late_syn_next++ % SMOS__LATE_SYNS]; /* the oldest has waited in vain */
        *syn = (smos__late_syn_t){.flow = handle, .time_ns = s->now_ns, .layer = *l, .from = (uint8_t)from};
        syn->layer.ip = syn->layer.l4 = syn->layer.payload = syn->layer.sack = NULL;
        syn->layer.payload_captured = 0;
    }
    syn->packets++;
    syn->payload_bytes += l->payload_len;
    syn->wire_bytes += s->frame->len;
    f->flags |= SMOS__FLOW_SYN_AGAIN;
}


/* Of a packet that the flow is not counted with yet. */
const smos__late_syn_t *smos__reuse_answered(smos_shard_t *s, uint32_t i, const smos__layer_t *l, int from)
{
    if (!(l->tcp_flags & SMOS__ACK) || l->flags & SMOS__BAD_CHECKSUM) return NULL;
    const uint64_t handle = smos__flow_handle(&s->arena, i);
    bool waits = false;
    for (int k = 0; k < SMOS__LATE_SYNS; k++) {
        const smos__late_syn_t *syn = &s->late_syns[k];
        waits |= syn->flow == handle;
        if (syn->flow != handle || syn->from == from || l->ack - syn->layer.seq - 1 > syn->layer.payload_len) continue;
        smos__endpoint_t *e = &s->arena.hot[i].end[syn->from];
        if (near(e, l->ack)) continue; /* the stream has come there since */
        e->packets -= syn->packets;
        e->payload_bytes -= syn->payload_bytes;
        e->wire_bytes -= syn->wire_bytes;
        return syn;
    }
    if (!waits) s->arena.hot[i].flags &= (uint16_t)~SMOS__FLOW_SYN_AGAIN;
    return NULL;
}


/* What was odd about it has been told. */
static void say_nothing(void *context, smos__anomaly_t anomaly) { (void)context, (void)anomaly; }


/* The flow is fresh, and its client is the SYN's sender. */
void smos__reuse_begin(smos_shard_t *s, uint32_t i, const smos__late_syn_t *syn)
{
    smos__flow_t *f = &s->arena.hot[i];
    smos__flow_cold_t *c = &s->arena.cold[i];
    smos__flow_conn_t *conn = &s->arena.conn[i];
    smos__endpoint_t *e = &f->end[SMOS_CLIENT];
    c->start_ns = syn->time_ns;
    e->packets = syn->packets;
    e->payload_bytes = syn->payload_bytes;
    e->wire_bytes = syn->wire_bytes;
    if (s->tcp.detail & SMOS_DETAIL_HISTORY) {
        const smos__zeek_segment_t z = {syn->layer.seq, syn->layer.ack, syn->layer.payload_len, syn->layer.window, syn->layer.tcp_flags, SMOS_CLIENT};
        smos__zeek_init(&conn->zeek, conn->history, false);
        for (uint32_t k = 0; k < syn->packets; k++) smos__zeek_segment(&conn->zeek, conn->history, &z);
    }
    smos__tcp_sink_t quiet = smos__shard_sink;
    quiet.anomaly = say_nothing;
    smos__tcp_t t = {f, c, conn, s->arena.pool, &s->tcp, &smos__set_of(s, f)->options, &quiet, s, syn->time_ns, NULL};
    smos__tcp_receiver(&t, &syn->layer, SMOS_CLIENT, smos__tcp_sender(&t, &syn->layer, SMOS_CLIENT));
}
