/* link.c: link layers, by the LINKTYPE_ values of capture files. */
#include "wire/walk.h"

void smos__ethernet(smos__walk_t *w, smos__span_t s)
{
    if (!smos__deeper(w)) return;
    if (s.captured < 14) {
        smos__short(w, s, 14, SMOS__ANOMALY_ETHERNET_PKT_TOO_SMALL);
        return;
    }
    uint32_t type = smos__be16(s.at + 12);
    if (type == 0x8903) { /* FabricPath: an outer header of 16 bytes, its last two a tag, then the whole frame */
        if (s.captured < 16) smos__short(w, s, 16, SMOS__ANOMALY_ETHERNET_PKT_TOO_SMALL);
        else smos__ethernet(w, smos__skip(s, 16));
        return;
    }
    s = smos__skip(s, 14);
    if (type >= 0x600) {
        smos__ethertype(w, s, type);
        return;
    }
    if (type > s.wire) smos__note(w, SMOS__ANOMALY_ETHERNET_TYPE_UNKNOWN_LENGTH);
    if (s.captured >= 2 && s.at[0] == 0xff && s.at[1] == 0xff) { /* Novell's raw 802.3 */
        smos__end(w, SMOS__WIRE_NOT_IP);
        return;
    }
    smos__llc(w, type ? smos__clamp(s, type) : s);
}

void smos__llc(smos__walk_t *w, smos__span_t s)
{
    if (!smos__deeper(w)) return;
    if (s.captured < 3) {
        smos__short(w, s, 3, SMOS__ANOMALY_LLC_PKT_TOO_SMALL);
        return;
    }
    const uint8_t *p = s.at;
    if (p[0] == 0xaa && p[1] == 0xaa && p[2] == 3) { /* SNAP, RFC 1042 */
        if (s.captured < 8) {
            smos__short(w, s, 8, SMOS__ANOMALY_LLC_PKT_TOO_SMALL);
            return;
        }
        uint32_t oui = (uint32_t)p[3] << 16 | smos__be16(p + 4), type = smos__be16(p + 6);
        s = smos__skip(s, 8);
        if (oui == 0 || oui == 0xf8)
            smos__ethertype(w, s, type);
        else if (oui == 0x80c2 && (type == 1 || type == 7) && s.captured >= 2) /* RFC 2684: bridged Ethernet, padded */
            smos__ethernet(w, smos__skip(s, 2));
        else
            smos__end(w, SMOS__WIRE_NOT_IP);
    } else if (p[0] == 6 && p[1] == 6 && p[2] == 3) {
        smos__ip(w, smos__skip(s, 3));
    } else if (p[0] == 0xfe && p[1] == 0xfe && p[2] == 3 && s.captured > 4 && (p[3] == 0xcc || p[3] == 0x8e)) { /* NLPID */
        smos__ip(w, smos__skip(s, 4));
    } else {
        smos__end(w, SMOS__WIRE_NOT_IP);
    }
}

void smos__ppp(smos__walk_t *w, smos__span_t s)
{
    if (!smos__deeper(w)) return;
    if (s.captured >= 2 && s.at[0] == 0xff && s.at[1] == 3) s = smos__skip(s, 2); /* HDLC address and control */
    uint32_t need = s.captured && s.at[0] & 1 ? 1 : 2; /* compressed protocol field, RFC 1661 6.5 */
    if (s.captured < need) {
        smos__short(w, s, need, SMOS__ANOMALY_PPP_PKT_TOO_SMALL);
        return;
    }
    uint32_t protocol = need == 1 ? s.at[0] : smos__be16(s.at);
    s = smos__skip(s, need);
    switch (protocol) {
    case 0x0021: smos__ipv4(w, s); return;
    case 0x0057: smos__ipv6(w, s); return;
    case 0x0281:
    case 0x0283: smos__mpls(w, s); return;
    case 0x003d: /* multilink, RFC 1990: of fragments only those that are whole packets */
        if (s.captured < 4 || (s.at[0] & 0xc0) != 0xc0) smos__end(w, SMOS__WIRE_NOT_IP);
        else smos__ppp(w, smos__skip(s, 4));
        return;
    default: smos__end(w, SMOS__WIRE_NOT_IP);
    }
}

/* PPP in HDLC framing, or Cisco's HDLC, told apart by the address byte. */
static void hdlc(smos__walk_t *w, smos__span_t s)
{
    if (s.captured == 0 || (s.at[0] != 0x0f && s.at[0] != 0x8f)) {
        smos__ppp(w, s);
        return;
    }
    if (s.captured < 4) {
        smos__short(w, s, 4, SMOS__ANOMALY_CHDLC_PKT_TOO_SMALL);
        return;
    }
    uint32_t type = smos__be16(s.at + 2);
    smos__ethertype(w, smos__skip(s, 4), type);
}

/* The host's address family, in either byte order: BSD's numbers for IPv6 differ. */
static void loopback(smos__walk_t *w, smos__span_t s)
{
    if (s.captured < 4) {
        smos__short(w, s, 4, SMOS__ANOMALY_LINK_TRUNCATED);
        return;
    }
    uint32_t family = smos__be32(s.at);
    if (family > 0xffff) family = __builtin_bswap32(family);
    s = smos__skip(s, 4);
    if (family == 2 || family == 24 || family == 28 || family == 30 || family == 10) smos__ip(w, s);
    else if (family >= 0x600 && family <= 0xffff) smos__ethertype(w, s, family);
    else smos__end(w, SMOS__WIRE_NOT_IP);
}

static void cooked(smos__walk_t *w, smos__span_t s, uint32_t size, uint32_t at)
{
    if (s.captured < size) {
        smos__short(w, s, size, SMOS__ANOMALY_SLL_PKT_TOO_SMALL);
        return;
    }
    uint32_t type = smos__be16(s.at + at);
    s = smos__skip(s, size);
    if (type == 4) smos__llc(w, s); /* LINUX_ETH_P_802_2 */
    else if (type == 1 || type < 0x600) smos__end(w, SMOS__WIRE_NOT_IP);
    else smos__ethertype(w, s, type);
}

/* Pads are skipped, then `size` bytes of link header are. */
void smos__after(smos__walk_t *w, smos__span_t s, uint32_t size, void (*next)(smos__walk_t *, smos__span_t))
{
    if (s.captured < size) smos__short(w, s, size, SMOS__ANOMALY_LINK_TRUNCATED);
    else next(w, smos__skip(s, size));
}

static void token_ring(smos__walk_t *w, smos__span_t s)
{
    if (s.captured < 14) {
        smos__short(w, s, 14, SMOS__ANOMALY_LINK_TRUNCATED);
        return;
    }
    if ((s.at[1] & 0xc0) != 0x40) { /* not an LLC frame */
        smos__end(w, SMOS__WIRE_NOT_IP);
        return;
    }
    uint32_t route = s.at[8] & 0x80 && s.captured > 14 ? s.at[14] & 0x1f : 0; /* source routing */
    smos__after(w, s, 14 + route, smos__llc);
}

static void fddi(smos__walk_t *w, smos__span_t s)
{
    if (s.captured < 13) smos__short(w, s, 13, SMOS__ANOMALY_LINK_TRUNCATED);
    else if ((s.at[0] & 0xf0) == 0x50 || (s.at[0] & 0xf0) == 0xd0) smos__llc(w, smos__skip(s, 13));
    else smos__end(w, SMOS__WIRE_NOT_IP);
}

static void arcnet(smos__walk_t *w, smos__span_t s, uint32_t head)
{
    if (s.captured < head + 1) {
        smos__short(w, s, head + 1, SMOS__ANOMALY_LINK_TRUNCATED);
        return;
    }
    uint32_t protocol = s.at[head];
    s = smos__skip(s, head + 1);
    if (protocol == 240) { /* RFC 1051 */
        smos__ipv4(w, s);
        return;
    }
    if (protocol != 212 && protocol != 196) { /* RFC 1201: IPv4, IPv6 */
        smos__end(w, SMOS__WIRE_NOT_IP);
        return;
    }
    uint32_t split = s.captured >= 1 && s.at[0] == 0xff ? 7 : 3; /* an exception packet repeats the header */
    if (s.captured < split) smos__short(w, s, split, SMOS__ANOMALY_LINK_TRUNCATED);
    else if (s.at[split - 3] != 0) smos__end(w, SMOS__WIRE_NOT_IP); /* a link-level fragment */
    else smos__ip(w, smos__skip(s, split));
}

static void nflog(smos__walk_t *w, smos__span_t s)
{
    if (s.captured < 4) {
        smos__short(w, s, 4, SMOS__ANOMALY_LINK_TRUNCATED);
        return;
    }
    uint8_t family = s.at[0];
    s = smos__skip(s, 4);
    for (int i = 0; i < 64 && s.captured >= 4; i++) { /* type-length-value in the host's order; all that write them are little-endian */
        uint32_t length = s.at[0] | (uint32_t)s.at[1] << 8, type = (s.at[2] | (uint32_t)s.at[3] << 8) & 0x7fff;
        if (length < 4) break;
        if (type == 9) { /* NFULA_PAYLOAD */
            s = smos__skip(smos__clamp(s, length), 4);
            if (family == 2 || family == 10) smos__ip(w, s);
            else smos__end(w, SMOS__WIRE_NOT_IP);
            return;
        }
        length = (length + 3) & ~3u;
        if (length > s.captured) break;
        s = smos__skip(s, length);
    }
    smos__end(w, s.captured < s.wire ? SMOS__WIRE_TRUNCATED : SMOS__WIRE_NOT_IP);
}

static void ppi(smos__walk_t *w, smos__span_t s)
{
    if (s.captured < 8) {
        smos__short(w, s, 8, SMOS__ANOMALY_LINK_TRUNCATED);
        return;
    }
    uint32_t length = s.at[2] | (uint32_t)s.at[3] << 8;
    uint32_t inner = s.at[4] | (uint32_t)s.at[5] << 8 | (uint32_t)s.at[6] << 16 | (uint32_t)s.at[7] << 24;
    if (length < 8 || length > s.captured) smos__short(w, s, length < 8 ? 8 : length, SMOS__ANOMALY_LINK_TRUNCATED);
    else if (inner == 192 || !smos__deeper(w)) smos__end(w, SMOS__WIRE_NOT_IP);
    else smos__link(w, smos__skip(s, length), inner);
}

/* The magic number, flags, with bit 7 the extensions' length and bytes; bit 1: no link header follows, the family's byte is given. */
static void juniper_ethernet(smos__walk_t *w, smos__span_t s)
{
    if (s.captured < 4 || s.at[0] != 0x4d || s.at[1] != 0x47 || s.at[2] != 0x43) {
        smos__short(w, s, 4, SMOS__ANOMALY_LINK_TRUNCATED);
        return;
    }
    uint32_t flags = s.at[3], size = 4;
    if (flags & 0x80) {
        if (s.captured < 6) {
            smos__short(w, s, 6, SMOS__ANOMALY_LINK_TRUNCATED);
            return;
        }
        size = 6 + smos__be16(s.at + 4);
    }
    if (flags & 2) smos__after(w, s, size + 4, smos__ip);
    else smos__after(w, s, size, smos__ethernet);
}


static void typed(smos__walk_t *w, smos__span_t s, uint32_t size, uint32_t at)
{
    if (s.captured < size) {
        smos__short(w, s, size, SMOS__ANOMALY_LINK_TRUNCATED);
        return;
    }
    uint32_t type = smos__be16(s.at + at);
    smos__ethertype(w, smos__skip(s, size), type);
}

void smos__link(smos__walk_t *w, smos__span_t s, uint32_t linktype)
{
    switch (linktype) {
    case 0:   /* NULL */
    case 108: /* LOOP */ loopback(w, s); return;
    case 1: smos__ethernet(w, s); return;
    case 6: token_ring(w, s); return;
    case 7:   arcnet(w, s, 2); return; /* BSD: source, destination, type */
    case 129: arcnet(w, s, 4); return; /* Linux: and two bytes of offset */
    case 8: smos__after(w, s, s.captured >= 16 && s.at[0] <= 1 ? 16 : 0, smos__ip); return; /* SLIP: direction, compressed header */
    case 9: hdlc(w, s); return; /* PPP */
    case 50: hdlc(w, s); return; /* PPP_HDLC */
    case 104: hdlc(w, s); return; /* C_HDLC */
    case 10: fddi(w, s); return;
    case 11:  /* ATM_RFC1483 */
    case 100: smos__llc(w, s); return;
    case 12:
    case 14:
    case 101: smos__ip(w, s); return; /* RAW */
    case 113: cooked(w, s, 16, 14); return;
    case 276: cooked(w, s, 20, 0); return;
    case 228: smos__ipv4(w, s); return;
    case 229: smos__ipv6(w, s); return;
    case 178: juniper_ethernet(w, s); return;
    case 192: ppi(w, s); return;
    case 239: nflog(w, s); return;
    case 242: typed(w, s, 44, 40); return; /* IPOIB: 40 bytes of GRH, type, reserved */
    default:
        if (!smos__rare_link(w, s, linktype)) smos__end(w, SMOS__WIRE_LINKTYPE);
    }
}
