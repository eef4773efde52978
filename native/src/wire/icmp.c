/* icmp.c: ICMP (RFC 792) and ICMPv6 (RFC 4443), with the packet that an error quotes. */
#include "wire/walk.h"

/* The quoted packet's tuple; its length is not to be trusted, routers cut it. */
static void quote(smos__walk_t *w, smos__layer_t *l, smos__span_t s)
{
    smos__anomaly_t small = l->tuple.proto == 1 ? SMOS__ANOMALY_ICMPV4_TRUNC_QUOTE : SMOS__ANOMALY_ICMPV6_TRUNC_QUOTE;
    smos_tuple_t *q = &l->quoted;
    const uint8_t *p = s.at;
    uint32_t header;
    *q = (smos_tuple_t){ .vlan = l->tuple.vlan, .tunnel = l->tuple.tunnel };
    l->quoted_seq = 0;
    if (s.captured >= 20 && p[0] >> 4 == 4) {
        header = (p[0] & 15) * 4u;
        if (header < 20) {
            smos__note(w, small);
            return;
        }
        smos__map_ipv4(q->src, p + 12);
        smos__map_ipv4(q->dst, p + 16);
        q->version = 4;
        q->proto = p[9];
        if (smos__be16(p + 6) & 0x1fff) return; /* a later fragment has no ports */
    } else if (s.captured >= 40 && p[0] >> 4 == 6) {
        header = 40;
        memcpy(q->src, p + 8, 16);
        memcpy(q->dst, p + 24, 16);
        q->version = 6;
        q->proto = p[6];
        for (int i = 0; i < 8 && (q->proto == 0 || q->proto == 43 || q->proto == 44 || q->proto == 60); i++) {
            if (s.captured < header + 8) break;
            uint32_t size = q->proto == 44 ? 8 : (p[header + 1] + 1u) * 8;
            if (q->proto == 44 && smos__be16(p + header + 2) & 0xfff8) return;
            q->proto = p[header];
            header += size;
        }
    } else {
        if (s.captured == s.wire) smos__note(w, small);
        return;
    }
    if (s.captured < header + 8) {
        if (s.wire < header + 8) smos__note(w, small);
        return;
    }
    p += header;
    if (q->proto == 6 || q->proto == 17 || q->proto == 132) {
        q->sport = smos__be16(p);
        q->dport = smos__be16(p + 2);
        if (q->proto == 6) l->quoted_seq = smos__be32(p + 4);
    } else if ((q->proto == 1 && (p[0] == 8 || p[0] == 0)) || (q->proto == 58 && (p[0] == 128 || p[0] == 129))) {
        q->sport = q->dport = smos__be16(p + 4);
    } else if (q->proto == 1 || q->proto == 58) {
        q->sport = q->dport = smos__be16(p);
    }
    l->flags |= SMOS__ICMP_ERROR;
}

static bool has_identifier(bool v6, uint8_t type)
{
    if (v6) return type == 128 || type == 129;
    return type == 0 || type == 8 || (type >= 13 && type <= 18); /* echo, timestamp, information, address mask */
}

static bool known(bool v6, uint8_t type)
{
    if (v6) return (type >= 1 && type <= 4) || (type >= 128 && type <= 161) || type == 100 || type == 101 || type == 200 || type == 201;
    return type <= 18 ? type != 1 && type != 2 && type != 7 : (type >= 30 && type <= 43) || type == 253 || type == 254;
}

void smos__icmp(smos__walk_t *w, smos__span_t s)
{
    smos__layer_t *l = w->layer;
    const uint8_t *p = s.at;
    bool v6 = l->tuple.proto == 58;
    if (s.captured < 4 || (s.captured < 8 && s.wire >= 8 && has_identifier(v6, p[0]))) {
        smos__short(w, s, 4, v6 ? SMOS__ANOMALY_ICMPV6_PKT_TOO_SMALL : SMOS__ANOMALY_ICMPV4_PKT_TOO_SMALL);
        return;
    }
    if (s.wire < 8) smos__note(w, v6 ? SMOS__ANOMALY_ICMPV6_PKT_TOO_SMALL : SMOS__ANOMALY_ICMPV4_PKT_TOO_SMALL);
    if (v6 != (l->tuple.version == 6)) smos__note(w, SMOS__ANOMALY_ICMP_WRONG_FAMILY);
    l->icmp_type = p[0];
    l->icmp_code = p[1];
    l->l4 = p;
    l->flags |= SMOS__L4_WHOLE;
    if (!known(v6, p[0])) smos__note(w, v6 ? SMOS__ANOMALY_ICMPV6_UNKNOWN_TYPE : SMOS__ANOMALY_ICMPV4_UNKNOWN_TYPE);
    l->tuple.sport = l->tuple.dport = has_identifier(v6, p[0]) && s.captured >= 8 ? smos__be16(p + 4) : smos__be16(p);
    if (s.captured < s.wire || w->half || w->frame->flags & SMOS__FRAME_NO_CHECKSUM) {
        l->flags |= SMOS__UNCHECKED;
    } else if ((v6 ? smos__transport_sum(w, &l->tuple, p, s.wire, 58) : smos__checksum(p, s.wire, 0)) != 0xffff) {
        l->flags |= SMOS__BAD_CHECKSUM;
        smos__note(w, v6 ? SMOS__ANOMALY_ICMPV6_BAD_CHECKSUM : SMOS__ANOMALY_ICMPV4_BAD_CHECKSUM);
    }
    s = smos__skip(s, s.captured < 8 ? s.captured : 8);
    l->payload_len = s.wire;
    l->payload_captured = s.captured;
    l->payload = s.captured ? s.at : NULL;
    if (s.captured < s.wire) l->flags |= SMOS__TRUNCATED;
    bool error = v6 ? p[0] >= 1 && p[0] <= 4 : (p[0] >= 3 && p[0] <= 5) || p[0] == 11 || p[0] == 12;
    if (error) quote(w, l, s);
    w->out->layers++;
    w->out->result = SMOS__WIRE_OK;
}
