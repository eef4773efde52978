/* tunnel.c: packets within packets: GRE, ERSPAN, and the tunnels over UDP. */
#include "wire/walk.h"

void smos__inner(smos__walk_t *w, smos__span_t s, uint32_t ethertype, uint8_t kind, uint32_t id)
{
    if (!smos__deeper(w)) return;
    w->tunnel_kind = kind;
    w->tunnel_id = id;
    smos__ethertype(w, s, ethertype);
}

static void ended(smos__walk_t *w, smos__anomaly_t anomaly)
{
    smos__note(w, anomaly);
    smos__end(w, SMOS__WIRE_MALFORMED);
}

/* draft-foschiano-erspan: I has no header (a GRE header without sequence number), II has 8 bytes, III 12 and perhaps 8 more. */
static void erspan(smos__walk_t *w, smos__span_t s, uint32_t type, bool sequenced)
{
    uint32_t size = 0, id = 0;
    if (sequenced) {
        size = type == 0x22eb ? 12 : 8;
        if (s.captured < size) {
            smos__short(w, s, size, SMOS__ANOMALY_ERSPAN_TOO_SMALL);
            return;
        }
        uint32_t version = s.at[0] >> 4;
        if (version != (type == 0x22eb ? 2u : 1u)) {
            ended(w, SMOS__ANOMALY_ERSPAN_VERSION);
            return;
        }
        id = smos__be16(s.at + 2) & 0x3ff;
        if (type == 0x22eb && s.at[11] & 1) size += 8; /* platform specific */
        if (s.captured < size) {
            smos__short(w, s, size, SMOS__ANOMALY_ERSPAN_TOO_SMALL);
            return;
        }
    }
    smos__inner(w, smos__skip(s, size), 0x6558, SMOS_TUNNEL_ERSPAN, id);
}

void smos__gre(smos__walk_t *w, smos__span_t s)
{
    const uint8_t *p = s.at;
    if (s.captured < 4) {
        smos__short(w, s, 4, SMOS__ANOMALY_GRE_PKT_TOO_SMALL);
        return;
    }
    uint32_t flags = smos__be16(p), type = smos__be16(p + 2), version = flags & 7, size = 4, id = 0;
    if (version > 1) {
        ended(w, SMOS__ANOMALY_GRE_WRONG_VERSION);
        return;
    }
    if (version == 0 && flags & 0x0700) smos__note(w, SMOS__ANOMALY_GRE0_RECURSION);
    if (version == 1 && !(flags & 0x2000)) smos__note(w, SMOS__ANOMALY_GRE1_NO_KEY);
    if (flags & 0xc000) size += 4; /* checksum, offset */
    if (flags & 0x2000) {
        size += 4;
        if (s.captured < size) {
            smos__short(w, s, size, SMOS__ANOMALY_GRE_PKT_TOO_SMALL);
            return;
        }
        id = version == 1 ? smos__be16(p + size - 2) : smos__be32(p + size - 4); /* PPTP: the call's id */
    }
    if (flags & 0x1000) size += 4;
    if (version == 1 && flags & 0x0080) size += 4; /* acknowledgement */
    if (version == 0 && flags & 0x4000) { /* RFC 1701 routing: entries up to one of length 0 */
        for (int i = 0; i < 16; i++) {
            if (s.captured < size + 4) break;
            uint32_t length = p[size + 3];
            size += 4 + length;
            if (length == 0) break;
        }
    }
    if (s.captured < size) {
        smos__short(w, s, size, SMOS__ANOMALY_GRE_PKT_TOO_SMALL);
        return;
    }
    s = smos__skip(s, size);
    if (version == 1 && !(flags & 0x1000)) { /* no sequence number, no payload: it acknowledges alone (RFC 2637 4.1) */
        smos__end(w, SMOS__WIRE_NOT_IP);
        return;
    }
    switch (type) {
    case 0x88be:
    case 0x22eb: erspan(w, s, type, flags & 0x1000); return;
    case 0x883e: /* WCCP: a redirect header of 4 bytes, unless IP begins at once */
        if (s.captured && s.at[0] >> 4 != 4) {
            if (s.captured < 4) smos__end(w, SMOS__WIRE_TRUNCATED);
            else smos__inner(w, smos__skip(s, 4), 0x0800, SMOS_TUNNEL_GRE, id);
            return;
        }
        smos__inner(w, s, 0x0800, SMOS_TUNNEL_GRE, id);
        return;
    default:
        if (version == 0 && type >> 8 == 0x82) { /* Aruba: 802.11 frames; the low byte names the tunnel */
            w->tunnel_kind = SMOS_TUNNEL_GRE;
            w->tunnel_id = id;
            if (!smos__deeper(w)) return;
            if (!smos__wlan(w, s)) smos__end(w, SMOS__WIRE_NOT_IP);
            return;
        }
        smos__inner(w, s, type, SMOS_TUNNEL_GRE, id);
    }
}

static int vxlan(smos__walk_t *w, smos__span_t s, bool gpe)
{
    if (s.captured < 8 || !(s.at[0] & 8)) {
        if (s.captured >= 8 || s.wire < 8) smos__note(w, SMOS__ANOMALY_VXLAN_INVALID);
        return 0;
    }
    static const uint16_t types[] = { 0, 0x0800, 0x86dd, 0x6558, 0x894f, 0x8847 };
    uint32_t type = 0x6558;
    if (gpe && (s.at[0] & 4 || s.at[3])) type = s.at[3] < 6 ? types[s.at[3]] : 0;
    uint32_t id = smos__be32(s.at + 4) >> 8;
    smos__inner(w, smos__skip(s, 8), type, SMOS_TUNNEL_VXLAN, id);
    return 1;
}

static int geneve(smos__walk_t *w, smos__span_t s)
{
    uint32_t size = s.captured >= 8 ? 8 + (s.at[0] & 0x3fu) * 4 : 8;
    if (s.captured < size || s.at[0] >> 6) {
        if (s.captured == s.wire) smos__note(w, SMOS__ANOMALY_GENEVE_INVALID);
        return 0;
    }
    uint32_t id = smos__be32(s.at + 4) >> 8, type = smos__be16(s.at + 2);
    smos__inner(w, smos__skip(s, size), type, SMOS_TUNNEL_GENEVE, id);
    return 1;
}

/* 3GPP TS 29.281: only G-PDUs (255) carry a user's packet. */
static int gtp(smos__walk_t *w, smos__span_t s)
{
    if (s.captured < 8 || (s.at[0] & 0xf0) != 0x30 || s.at[1] != 255) return 0;
    uint32_t id = smos__be32(s.at + 4), size = 8;
    if (s.at[0] & 7) {
        size = 12;
        uint32_t next = s.captured >= 12 && s.at[0] & 4 ? s.at[11] : 0;
        for (int i = 0; next && i < 16; i++) {
            if (s.captured < size + 1 || s.at[size] == 0 || s.captured < size + s.at[size] * 4u) {
                if (s.captured == s.wire) smos__note(w, SMOS__ANOMALY_GTP_INVALID);
                return 0;
            }
            size += s.at[size] * 4u;
            next = s.at[size - 1];
        }
    }
    if (s.captured <= size) {
        if (s.wire <= size) smos__note(w, SMOS__ANOMALY_GTP_INVALID);
        return 0;
    }
    s = smos__skip(s, size);
    uint32_t version = s.at[0] >> 4;
    if (version != 4 && version != 6) return 0;
    smos__inner(w, s, version == 4 ? 0x0800 : 0x86dd, SMOS_TUNNEL_GTPU, id);
    return 1;
}

/* RFC 4380 5.1.1: perhaps an authentication and an origin indicator, then IPv6 that fills the datagram. */
static int teredo(smos__walk_t *w, smos__span_t s)
{
    if (s.captured >= 4 && s.at[0] == 0 && s.at[1] == 1) {
        uint32_t size = 13u + s.at[2] + s.at[3];
        if (s.captured < size) return 0;
        s = smos__skip(s, size);
    }
    if (s.captured >= 8 && s.at[0] == 0 && s.at[1] == 0) s = smos__skip(s, 8);
    if (s.captured < 40 || s.at[0] >> 4 != 6 || smos__be16(s.at + 4) + 40u > s.wire) return 0;
    smos__inner(w, s, 0x86dd, SMOS_TUNNEL_TEREDO, 0);
    return 1;
}

/* RFC 5415 4.3: whole frames, 802.3 or 802.11 (RFC 5416), whose frame control some send with its bytes swapped. */
static int capwap(smos__walk_t *w, smos__span_t s)
{
    if (s.captured < 8 || s.at[0] != 0) return 0;
    uint32_t size = (s.at[1] >> 3) * 4u, flags = s.at[3], native = s.at[2] & 1;
    if (size < 8 || s.captured < size + 14 || flags & 0x88) return 0; /* a fragment, or a keep-alive */
    s = smos__skip(s, size);
    if (!native) {
        smos__inner(w, s, 0x6558, SMOS_TUNNEL_NONE, 0);
        return 1;
    }
    w->tunnel_kind = SMOS_TUNNEL_NONE;
    w->tunnel_id = 0;
    return smos__wlan(w, s);
}

/* RFC 2661 3.1, version 2: data messages, whose payload is PPP. */
static int l2tp(smos__walk_t *w, smos__span_t s)
{
    if (s.captured < 6) return 0;
    uint32_t flags = smos__be16(s.at), size = 2;
    if ((flags & 0x800f) != 2 || flags & 0x34f0) return 0; /* a control message, another version, reserved bits */
    if (flags & 0x4000) {
        s = smos__clamp(s, smos__be16(s.at + 2));
        size += 2;
    }
    if (s.captured < size + 4) return 0;
    uint32_t id = smos__be32(s.at + size); /* tunnel and session */
    size += 4;
    if (flags & 0x0800) size += 4;
    if (flags & 0x0200) {
        if (s.captured < size + 2) return 0;
        size += 2 + smos__be16(s.at + size);
    }
    if (s.captured <= size) return 0;
    w->tunnel_kind = SMOS_TUNNEL_L2TP;
    w->tunnel_id = id;
    smos__ppp(w, smos__skip(s, size));
    return 1;
}

/* RFC 6830 5: data of LISP, IP behind 8 bytes. */
static int lisp(smos__walk_t *w, smos__span_t s)
{
    if (s.captured < 9 || (s.at[8] >> 4 != 4 && s.at[8] >> 4 != 6)) return 0;
    s = smos__skip(s, 8);
    smos__inner(w, s, s.at[0] >> 4 == 4 ? 0x0800 : 0x86dd, SMOS_TUNNEL_NONE, 0);
    return 1;
}

/* TaZmen's sniffer protocol: frames of a kind, behind tags. */
static int tzsp(smos__walk_t *w, smos__span_t s)
{
    if (s.captured < 5 || s.at[0] != 1 || s.at[1] > 1) return 0;
    uint32_t kind = smos__be16(s.at + 2);
    s = smos__skip(s, 4);
    for (int i = 0; i < 64 && s.captured; i++) {
        uint32_t tag = s.at[0], length = tag <= 1 ? 1 : s.captured >= 2 ? 2u + s.at[1] : UINT32_MAX;
        if (length > s.captured) return 0;
        s = smos__skip(s, length);
        if (tag != 1) continue; /* 1: the last */
        if (kind != 1 && kind != 18) return 0; /* Ethernet, 802.11 */
        w->tunnel_kind = SMOS_TUNNEL_NONE;
        w->tunnel_id = 0;
        if (!smos__deeper(w)) return 1;
        if (kind == 18) return smos__wlan(w, s);
        smos__ethernet(w, s);
        return 1;
    }
    return 0;
}

/* draft-massar-v6ops-ayiya: identity and signature, whose lengths its first two bytes tell, then IP. */
static int ayiya(smos__walk_t *w, smos__span_t s)
{
    if (s.captured < 8 || (s.at[2] & 0x0f) != 1) return 0; /* not forwarded */
    uint32_t size = 8 + (1u << (s.at[0] >> 4)) + (s.at[1] >> 4) * 4u;
    uint32_t type = s.at[3] == 41 ? 0x86dd : s.at[3] == 4 ? 0x0800 : 0;
    if (!type || s.captured <= size) return 0;
    smos__inner(w, smos__skip(s, size), type, SMOS_TUNNEL_NONE, 0);
    return 1;
}

int smos__udp_tunnel(smos__walk_t *w, smos__span_t s, uint16_t sport, uint16_t dport)
{
    w->guess = 1;
    switch (dport) {
    case 4789:
    case 8472: return vxlan(w, s, false);
    case 4790: return vxlan(w, s, true);
    case 6081: return geneve(w, s);
    case 2152: return gtp(w, s);
    case 3544: return teredo(w, s);
    case 5247: return capwap(w, s);
    case 1701: return l2tp(w, s);
    case 4341: return lisp(w, s);
    case 5072: return ayiya(w, s);
    case 37008: return tzsp(w, s);
    case 6635: smos__inner(w, s, 0x8847, SMOS_TUNNEL_MPLS, 0); return 1; /* RFC 7510 */
    default: break;
    }
    switch (sport) { /* answers that go to the asker's port */
    case 2152: return gtp(w, s);
    case 3544: return teredo(w, s);
    case 5247: return capwap(w, s);
    case 1701: return l2tp(w, s);
    case 5072: return ayiya(w, s);
    case 4789:
    case 8472: return s.captured >= 8 && s.at[0] == 8 ? vxlan(w, s, false) : 0;
    case 4790: return s.captured >= 8 && ((s.at[0] & 0x0c) == 0x0c || (s.at[0] == 8 && s.at[3])) ? vxlan(w, s, true) : 0;
    case 6081: return s.captured >= 8 && s.at[0] >> 6 == 0 && smos__be16(s.at + 2) >= 0x600 ? geneve(w, s) : 0;
    default: return 0;
    }
}
