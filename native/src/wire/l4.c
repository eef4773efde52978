/* l4.c: TCP (RFC 9293), UDP (RFC 768), SCTP's common header, AH, and IP protocols that are tunnels. */
#include "wire/walk.h"

static void keep(smos__walk_t *w, smos__wire_result_t result)
{
    w->out->layers++;
    w->out->result = (uint8_t)result;
}

static void set_payload(smos__layer_t *l, smos__span_t s)
{
    l->payload_len = s.wire;
    l->payload_captured = s.captured;
    l->payload = s.captured ? s.at : NULL;
    if (s.captured < s.wire) l->flags |= SMOS__TRUNCATED;
}

/* A header that was cut or lies: the layer stands by its ports if the fixed part is there. */
static void unreadable(smos__walk_t *w, smos__span_t s, smos__wire_result_t result)
{
    smos__layer_t *l = w->layer;
    l->flags |= SMOS__UNCHECKED;
    if (s.captured < (l->tuple.proto == 6 ? 20u : 8u)) {
        smos__end(w, result);
        return;
    }
    l->tuple.sport = smos__be16(s.at);
    l->tuple.dport = smos__be16(s.at + 2);
    keep(w, result);
}

static bool checkable(const smos__walk_t *w, smos__layer_t *l, bool whole)
{
    if (whole && !w->half && !(w->frame->flags & SMOS__FRAME_NO_CHECKSUM)) return true;
    l->flags |= SMOS__UNCHECKED;
    return false;
}

static void bad_checksum(smos__walk_t *w, smos__anomaly_t anomaly)
{
    w->layer->flags |= SMOS__BAD_CHECKSUM;
    smos__note(w, anomaly);
}

static void tcp(smos__walk_t *w, smos__span_t s)
{
    smos__layer_t *l = w->layer;
    const uint8_t *p = s.at;
    if (__builtin_expect(s.captured < 20, 0)) {
        if (s.wire < 20) smos__note(w, SMOS__ANOMALY_TCP_PKT_TOO_SMALL);
        unreadable(w, s, s.wire < 20 ? SMOS__WIRE_MALFORMED : SMOS__WIRE_TRUNCATED);
        return;
    }
    uint32_t header = (p[12] >> 4) * 4u;
    if (__builtin_expect(header < 20 || header > s.captured, 0)) {
        if (header < 20) { /* where its data begins is not known: no receiver takes it for a segment */
            smos__note(w, SMOS__ANOMALY_TCP_HLEN_TOO_SMALL);
            smos__end(w, SMOS__WIRE_MALFORMED);
            return;
        }
        bool cut = header <= s.wire; /* the snap length cut the options; all else is known */
        if (!cut) smos__note(w, SMOS__ANOMALY_TCP_INVALID_HLEN);
        unreadable(w, s, cut ? SMOS__WIRE_OK : SMOS__WIRE_MALFORMED);
        l->seq = smos__be32(p + 4);
        l->ack = smos__be32(p + 8);
        l->tcp_flags = p[13];
        l->window = smos__be16(p + 14);
        l->urgent = smos__be16(p + 18);
        l->payload_len = cut ? s.wire - header : 0;
        if (l->payload_len) l->flags |= SMOS__TRUNCATED;
        return;
    }
    l->l4 = p;
    l->tuple.sport = smos__be16(p);
    l->tuple.dport = smos__be16(p + 2);
    l->seq = smos__be32(p + 4);
    l->ack = smos__be32(p + 8);
    l->tcp_flags = p[13];
    l->window = smos__be16(p + 14);
    l->urgent = smos__be16(p + 18);
    l->flags |= SMOS__L4_WHOLE;
    if (header == 32 && smos__be32(p + 20) == 0x0101080a) { /* NOP NOP timestamps: nearly every segment of today */
        l->tsval = smos__be32(p + 24);
        l->tsecr = smos__be32(p + 28);
        l->flags |= SMOS__HAS_TIMESTAMP;
    } else if (header > 20) {
        smos__tcp_options(w, l, p + 20, header - 20);
    }
    if (checkable(w, l, s.captured == s.wire) && smos__transport_sum(w, &l->tuple, p, s.wire, 6) != 0xffff)
        bad_checksum(w, SMOS__ANOMALY_TCP_BAD_CHECKSUM);
    set_payload(l, smos__skip(s, header));
    keep(w, SMOS__WIRE_OK);
}

static bool tunnel_port(uint16_t port)
{
    switch (port) {
    case 1701:
    case 2152:
    case 3544:
    case 4341:
    case 4789:
    case 4790:
    case 5072:
    case 5247:
    case 6081:
    case 6635:
    case 8472:
    case 37008: return true;
    default: return false;
    }
}

static void udp(smos__walk_t *w, smos__span_t s)
{
    smos__layer_t *l = w->layer;
    const uint8_t *p = s.at;
    if (__builtin_expect(s.captured < 8, 0)) {
        if (s.wire < 8) smos__note(w, SMOS__ANOMALY_UDP_PKT_TOO_SMALL);
        unreadable(w, s, s.wire < 8 ? SMOS__WIRE_MALFORMED : SMOS__WIRE_TRUNCATED);
        return;
    }
    uint32_t length = smos__be16(p + 4);
    if (length == 0 && l->tuple.version == 6) length = s.wire; /* a jumbogram (RFC 2675) */
    if (__builtin_expect(length < 8, 0)) {
        smos__note(w, SMOS__ANOMALY_UDP_LEN_INVALID);
        unreadable(w, s, SMOS__WIRE_MALFORMED);
        return;
    }
    bool whole = true;
    if (__builtin_expect(length != s.wire, 0)) {
        whole = length < s.wire;
        smos__note(w, whole ? SMOS__ANOMALY_UDP_HLEN_INVALID : SMOS__ANOMALY_UDP_LEN_INVALID);
        s = smos__clamp(s, length);
    }
    l->l4 = p;
    l->tuple.sport = smos__be16(p);
    l->tuple.dport = smos__be16(p + 2);
    l->flags |= SMOS__L4_WHOLE;
    bool tunnel = tunnel_port(l->tuple.dport) || tunnel_port(l->tuple.sport);
    if (smos__be16(p + 6) == 0) { /* none */
        if (l->tuple.version == 6 && !tunnel) smos__note(w, SMOS__ANOMALY_UDP6_ZERO_CHECKSUM);
        l->flags |= SMOS__UNCHECKED;
    } else if (checkable(w, l, whole && s.captured == s.wire) && smos__transport_sum(w, &l->tuple, p, s.wire, 17) != 0xffff) {
        bad_checksum(w, SMOS__ANOMALY_UDP_BAD_CHECKSUM);
    }
    s = smos__skip(s, 8);
    set_payload(l, s);
    keep(w, SMOS__WIRE_OK);
    if (__builtin_expect(tunnel, 0)) smos__udp_tunnel(w, s, l->tuple.sport, l->tuple.dport);
}

static void sctp(smos__walk_t *w, smos__span_t s)
{
    smos__layer_t *l = w->layer;
    if (s.captured < 12) {
        if (s.wire < 12) smos__note(w, SMOS__ANOMALY_SCTP_PKT_TOO_SMALL);
        unreadable(w, s, s.wire < 12 ? SMOS__WIRE_MALFORMED : SMOS__WIRE_TRUNCATED);
        return;
    }
    l->l4 = s.at;
    l->tuple.sport = smos__be16(s.at);
    l->tuple.dport = smos__be16(s.at + 2);
    l->flags |= SMOS__L4_WHOLE | SMOS__UNCHECKED;
    set_payload(l, smos__skip(s, 12));
    keep(w, SMOS__WIRE_OK);
}

/* A protocol without a decoder: a layer of its own, all of it payload. */
static void other(smos__walk_t *w, smos__span_t s)
{
    smos__layer_t *l = w->layer;
    l->l4 = s.captured ? s.at : NULL;
    l->flags |= SMOS__UNCHECKED;
    set_payload(l, s);
    keep(w, SMOS__WIRE_OK);
}

/* RFC 4302: what it authenticates follows in clear. 0 if the walk ended. */
static int authentication(smos__walk_t *w, smos__span_t *s)
{
    uint32_t size = s->captured >= 12 ? (s->at[1] + 2u) * 4 : 12;
    if (s->captured < 12 || size < 12 || s->captured < size) {
        smos__short(w, *s, size < 12 ? UINT32_MAX : size, SMOS__ANOMALY_IPV6_TRUNC_EXTHDR);
        return 0;
    }
    if (smos__be16(s->at + 2)) smos__note(w, SMOS__ANOMALY_IPV6_AH_RES_NOT_NULL);
    w->layer->tuple.proto = s->at[0];
    *s = smos__skip(*s, size);
    return 1;
}

void smos__transport(smos__walk_t *w, smos__span_t s)
{
    for (int i = 0; i < 4; i++) {
        switch (w->layer->tuple.proto) {
        case 6: tcp(w, s); return;
        case 17: udp(w, s); return;
        case 1:
        case 58: smos__icmp(w, s); return;
        case 132: sctp(w, s); return;
        case 51:
            if (!authentication(w, &s)) return;
            break;
        case 4:
            other(w, s);
            smos__inner(w, s, 0x0800, SMOS_TUNNEL_IPIP, 0);
            return;
        case 41:
            other(w, s);
            smos__inner(w, s, 0x86dd, SMOS_TUNNEL_IPIP, 0);
            return;
        case 47:
            other(w, s);
            smos__gre(w, s);
            return;
        case 97: /* EtherIP, RFC 3378 */
            other(w, s);
            if (s.captured >= 2 && s.at[0] == 0x30 && s.at[1] == 0) smos__inner(w, smos__skip(s, 2), 0x6558, SMOS_TUNNEL_GRE, 0);
            return;
        case 103: /* PIM: a Register carries the packet (RFC 7761 4.9.3) */
            other(w, s);
            if (s.captured > 8 && s.at[0] == 0x21) {
                w->tunnel_kind = SMOS_TUNNEL_IPIP;
                w->tunnel_id = 0;
                smos__ip(w, smos__skip(s, 8));
            }
            return;
        case 143: /* an Ethernet frame, RFC 8986 4.9 */
            other(w, s);
            smos__inner(w, s, 0x6558, SMOS_TUNNEL_IPIP, 0);
            return;
        case 137: /* RFC 4023 */
            other(w, s);
            smos__inner(w, s, 0x8847, SMOS_TUNNEL_MPLS, 0);
            return;
        default: other(w, s); return;
        }
    }
    other(w, s);
}
