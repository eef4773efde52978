/* ethertype.c: what follows an Ethernet type: tags, labels, PPPoE, IP. */
#include "wire/walk.h"

static int tag(smos__walk_t *w, smos__span_t *s, uint32_t size, uint32_t *type)
{
    if (!smos__deeper(w)) return 0;
    if (s->captured < size) {
        smos__short(w, *s, size, SMOS__ANOMALY_VLAN_HEADER_TOO_SMALL);
        return 0;
    }
    *type = smos__be16(s->at + size - 2);
    *s = smos__skip(*s, size);
    return 1;
}

static void keep_vlan(smos__walk_t *w, uint16_t id)
{
    if (w->vlans < 2)
        w->vlan[w->vlans] = id;
    else
        smos__note(w, SMOS__ANOMALY_VLAN_TOO_MANY_LAYERS);
    if (w->vlans < UINT8_MAX) w->vlans++;
}

static void pppoe(smos__walk_t *w, smos__span_t s)
{
    if (!smos__deeper(w)) return;
    if (s.captured < 8) {
        smos__short(w, s, 8, SMOS__ANOMALY_PPPOE_PKT_TOO_SMALL);
        return;
    }
    if (s.at[0] != 0x11) {
        smos__note(w, SMOS__ANOMALY_PPPOE_WRONG_VERSION);
        smos__end(w, SMOS__WIRE_MALFORMED);
        return;
    }
    uint32_t length = smos__be16(s.at + 4), id = smos__be16(s.at + 2);
    s = smos__skip(s, 6);
    if (length > s.wire) smos__note(w, SMOS__ANOMALY_PPPOE_LENGTH);
    w->tunnel_kind = SMOS_TUNNEL_PPPOE;
    w->tunnel_id = id;
    smos__ppp(w, smos__clamp(s, length));
}

void smos__mpls(smos__walk_t *w, smos__span_t s)
{
    uint32_t entry;
    do {
        if (!smos__deeper(w)) return;
        if (s.captured < 4) {
            smos__short(w, s, 4, SMOS__ANOMALY_MPLS_HEADER_TOO_SMALL);
            return;
        }
        entry = smos__be32(s.at);
        s = smos__skip(s, 4);
        if (entry >> 12 == 3) smos__note(w, SMOS__ANOMALY_MPLS_BAD_LABEL);
    } while (!(entry & 0x100));
    if (w->tunnel_kind == SMOS_TUNNEL_NONE) {
        w->tunnel_kind = SMOS_TUNNEL_MPLS;
        w->tunnel_id = entry >> 12;
    }
    if (s.captured < 1) {
        smos__end(w, SMOS__WIRE_TRUNCATED);
        return;
    }
    /* RFC 4928: the first nibble tells; a pseudowire's control word begins with 0, and is followed by Ethernet (RFC 4448). */
    switch (s.at[0] >> 4) {
    case 4: smos__ipv4(w, s); return;
    case 6: smos__ipv6(w, s); return;
    case 0:
        if (s.captured >= 4 && s.at[0] == 0 && s.at[1] == 0) smos__ethernet(w, smos__skip(s, 4));
        else smos__ethernet(w, s);
        return;
    default:
        if (s.captured >= 14 && (smos__be16(s.at + 12) == 0x0800 || smos__be16(s.at + 12) == 0x86dd || smos__be16(s.at + 12) == 0x8100)) {
            smos__ethernet(w, s); /* no control word */
            return;
        }
        smos__note(w, SMOS__ANOMALY_MPLS_UNKNOWN_PAYLOAD);
        smos__end(w, SMOS__WIRE_NOT_IP);
    }
}

/* RFC 8300 */
static void nsh(smos__walk_t *w, smos__span_t s)
{
    static const uint16_t types[] = { 0, 0x0800, 0x86dd, 0x6558, 0x894f, 0x8847 };
    if (!smos__deeper(w)) return;
    uint32_t size = s.captured >= 8 ? (s.at[1] & 0x3fu) * 4 : 8;
    if (s.captured < 8 || size < 8 || s.captured < size) {
        smos__short(w, s, size < 8 ? UINT32_MAX : size, SMOS__ANOMALY_NSH_HEADER_TOO_SMALL);
        return;
    }
    uint32_t next = s.at[3];
    smos__ethertype(w, smos__skip(s, size), next < 6 ? types[next] : 0);
}

void smos__ip(smos__walk_t *w, smos__span_t s)
{
    if (s.captured < 1)
        smos__end(w, s.wire ? SMOS__WIRE_TRUNCATED : SMOS__WIRE_NOT_IP);
    else if (s.at[0] >> 4 == 4)
        smos__ipv4(w, s);
    else if (s.at[0] >> 4 == 6)
        smos__ipv6(w, s);
    else
        smos__end(w, SMOS__WIRE_NOT_IP);
}

void smos__ethertype(smos__walk_t *w, smos__span_t s, uint32_t type)
{
    for (;;) {
        switch (type) {
        case 0x0800: smos__ipv4(w, s); return;
        case 0x86dd: smos__ipv6(w, s); return;
        case 0x8100: /* 802.1Q */
        case 0x88a8: /* 802.1ad */
        case 0x9100: /* QinQ before it was standard, as the next two */
        case 0x9200:
        case 0x9300: {
            const uint8_t *at = s.at;
            if (!tag(w, &s, 4, &type)) return;
            keep_vlan(w, smos__be16(at) & 0xfff);
            if (type < 0x600) { /* a length: LLC behind the tag */
                smos__llc(w, smos__clamp(s, type));
                return;
            }
            break;
        }
        case 0x893f: /* 802.1BR E-TAG */
            if (!tag(w, &s, 8, &type)) return;
            break;
        case 0x8926: /* VN-Tag */
            if (!tag(w, &s, 6, &type)) return;
            break;
        case 0x8909: /* Cisco metadata: version, length, one or more options of 4 bytes, type */
            if (!tag(w, &s, 8, &type)) return;
            break;
        case 0x892f: /* HSR, IEC 62439-3 */
            if (!tag(w, &s, 6, &type)) return;
            break;
        case 0x88e5: /* MACsec, 802.1AE: its 14 or 6 bytes, unless what follows is encrypted or changed */
            if (s.captured && s.at[0] & 0x0c) {
                smos__end(w, SMOS__WIRE_NOT_IP);
                return;
            }
            if (!tag(w, &s, s.captured && s.at[0] & 0x20 ? 16 : 8, &type)) return;
            break;
        case 0x22f3: /* TRILL, RFC 6325: options, then the customer's frame */
            smos__after(w, s, s.captured >= 2 ? 6 + (smos__be16(s.at) >> 6 & 0x1f) * 4u : 6, smos__ethernet);
            return;
        case 0x88e7: /* 802.1ah: I-TAG, then the customer's frame */
            if (s.captured < 4) smos__short(w, s, 4, SMOS__ANOMALY_VLAN_HEADER_TOO_SMALL);
            else smos__ethernet(w, smos__skip(s, 4));
            return;
        case 0x6558: /* transparent Ethernet bridging */
            smos__ethernet(w, s);
            return;
        case 0x8847:
        case 0x8848: smos__mpls(w, s); return;
        case 0x894f: nsh(w, s); return;
        case 0x8864: pppoe(w, s); return;
        case 0x880b: smos__ppp(w, s); return;
        default: smos__end(w, SMOS__WIRE_NOT_IP); return;
        }
    }
}
