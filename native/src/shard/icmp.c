/* ICMP errors and the flows that they are about. */
#include "shard/shard.h"


static smos__anomaly_t kind_of(const smos__layer_t *l)
{
    if (l->tuple.proto == 58) { /* RFC 4443 3 */
        switch (l->icmp_type) {
        case 1: return SMOS__ANOMALY_ICMP_UNREACHABLE;
        case 2: return SMOS__ANOMALY_ICMP_FRAGMENTATION_NEEDED;
        case 3: return SMOS__ANOMALY_ICMP_TIME_EXCEEDED;
        default: return SMOS__ANOMALY_ICMP_PARAMETER_PROBLEM;
        }
    }
    switch (l->icmp_type) { /* RFC 792; RFC 1191 for code 4 of type 3 */
    case 3: return l->icmp_code == 4 ? SMOS__ANOMALY_ICMP_FRAGMENTATION_NEEDED : SMOS__ANOMALY_ICMP_UNREACHABLE;
    case 4: return SMOS__ANOMALY_ICMP_SOURCE_QUENCH;
    case 5: return SMOS__ANOMALY_ICMP_REDIRECT;
    case 11: return SMOS__ANOMALY_ICMP_TIME_EXCEEDED;
    default: return SMOS__ANOMALY_ICMP_PARAMETER_PROBLEM;
    }
}


/* RFC 5927 4.1: an error about a segment that is not under way was made by somebody who guesses. SND.NXT itself is an acknowledgement's. */
static bool under_way(const smos__endpoint_t *e, uint32_t seq)
{
    if (!(e->flags & SMOS__EP_BASE)) return true; /* nothing is known of its sequence space */
    return smos__seq_geq(seq, e->flags & SMOS__EP_ACKED ? e->snd_una : e->isn) && smos__seq_leq(seq, e->snd_nxt);
}


void smos__icmp_error(smos_shard_t *s, const smos__frame_t *frame, smos__layer_t *l, const smos_tuple_t *quoted)
{
    int sender;
    uint32_t hash = smos__table_hash(&s->table, quoted), i = smos__table_find(&s->table, s->arena.hot, hash, quoted, &sender);
    if (i == SMOS__NO_FLOW) i = smos__alias_find(&s->edits.aliases, quoted, hash, &sender);
    if (i == SMOS__NO_FLOW) return;
    smos__flow_t *f = &s->arena.hot[i];
    if (smos__flow_expired(s, f, s->now_ns) || f->flags & SMOS__FLOW_ENDED) return;
    SMOS__COUNT(s, icmp_errors_tied);
    bool forged = quoted->proto == 6 && !under_way(&f->end[sender], l->quoted_seq);
    smos__flow_begin(f);
    if (f->epoch != s->events.epoch) smos__events_refresh(&s->events, i, NULL, 0, 0);
    smos__take_packet(s, i, f, frame, l, !sender); /* it comes to the quoted packet's sender, from the other end's direction */
    smos__anomaly_raise(s, i, forged ? SMOS__ANOMALY_ICMP_FORGED : kind_of(l));
    smos__leave_packet(s);
    if (f->flags & SMOS__FLOW_RESET && f->end_reason == 255) { /* a handler reset it: it ends as one that no packet of its own ends */
        f->end_reason = SMOS_END_RST;
        s->arena.hot[i].class_ = SMOS__CLASS_RESET;
    }
    smos__flow_commit(f);
    if (!s->events.dropped || s->verdict == SMOS__DROP) return;
    SMOS__COUNT(s, drop_verdict);
    s->verdict = SMOS__DROP;
}
