/* rare.c: link types that are seldom met: monitor mode of wireless cards, frame relay, capture cards, other systems' pseudo devices. */
#include "wire/walk.h"

static uint32_t le16(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8; }
static uint32_t le32(const uint8_t *p) { return le16(p) | le16(p + 2) << 16; }

static void cut(smos__walk_t *w, smos__span_t s, uint32_t need) { smos__short(w, s, need, SMOS__ANOMALY_LINK_TRUNCATED); }

static void monitor(smos__walk_t *w, smos__span_t s) { smos__wlan_link(w, s, false); }

/* https://www.radiotap.org: presence words, then fields, each aligned to its size; the second, of flags, tells of a pad and of a checksum behind. */
static void radiotap(smos__walk_t *w, smos__span_t s)
{
    uint32_t length = s.captured >= 8 ? le16(s.at + 2) : 8, at = 4, flags = 0;
    if (s.captured < 8 || length < 8 || length > s.captured) {
        cut(w, s, length < 8 ? 8 : length);
        return;
    }
    uint32_t present = le32(s.at + 4);
    while (at + 4 <= length && le32(s.at + at) & 0x80000000) at += 4; /* more of them */
    at += 4;
    if (present & 1) at = ((at + 7) & ~7u) + 8; /* the timestamp */
    if (present & 2 && at < length) flags = s.at[at];
    s = smos__skip(s, length);
    if (flags & 0x10 && s.wire >= 4) s = smos__clamp(s, s.wire - 4);
    smos__wlan_link(w, s, flags & 0x20);
}

/* Both begin with their length: AVS in the network's order, Prism in the host's. */
static void prism(smos__walk_t *w, smos__span_t s)
{
    uint32_t length = s.captured < 8 ? 8 : smos__be32(s.at) >> 12 == 0x80211 ? smos__be32(s.at + 4) : le32(s.at + 4);
    if (s.captured < 8 || length < 8 || length > s.captured) cut(w, s, length < 8 || length > 4096 ? 8 : length);
    else smos__wlan_link(w, smos__skip(s, length), false);
}

/* RFC 2427: an address of two to four bytes, UI, a network layer's number. Cisco's: an Ethernet type behind the address. */
static void frame_relay(smos__walk_t *w, smos__span_t s)
{
    uint32_t size = 1;
    while (size < s.captured && size < 4 && !(s.at[size - 1] & 1)) size++;
    if (s.captured < size + 2 || size < 2) {
        cut(w, s, size + 2);
        return;
    }
    s = smos__skip(s, size);
    if (s.at[0] != 3) {
        uint32_t type = smos__be16(s.at);
        smos__ethertype(w, smos__skip(s, 2), type);
        return;
    }
    uint32_t pad = s.at[1] == 0 ? 1 : 0; /* aligns what follows */
    if (s.captured < 2 + pad) {
        cut(w, s, 2 + pad);
        return;
    }
    uint32_t number = s.at[1 + pad];
    s = smos__skip(s, 2 + pad);
    if (number == 0xcc || number == 0x8e) {
        smos__ip(w, s);
    } else if (number == 0x80 && s.captured >= 5) { /* SNAP */
        uint32_t maker = (uint32_t)s.at[0] << 16 | smos__be16(s.at + 1), type = smos__be16(s.at + 3);
        s = smos__skip(s, 5);
        if (maker == 0) smos__ethertype(w, s, type);
        else if (maker == 0x80c2 && (type == 1 || type == 7)) smos__ethernet(w, s);
        else smos__end(w, SMOS__WIRE_NOT_IP);
    } else {
        smos__end(w, SMOS__WIRE_NOT_IP);
    }
}

/* A byte that tells the direction, then the link's own. */
static void directed(smos__walk_t *w, smos__span_t s, uint32_t linktype)
{
    if (s.captured < 1) cut(w, s, 1);
    else smos__link(w, smos__skip(s, 1), linktype);
}

static void typed(smos__walk_t *w, smos__span_t s, uint32_t size, uint32_t at)
{
    if (s.captured < size) {
        cut(w, s, size);
        return;
    }
    uint32_t type = smos__be16(s.at + at);
    smos__ethertype(w, smos__skip(s, size), type);
}

/* OpenBSD's packet filter: a header of so many bytes, padded to a multiple of four. */
static void pflog(smos__walk_t *w, smos__span_t s)
{
    uint32_t size = s.captured ? (s.at[0] + 3u) & ~3u : 4;
    if (size < 48 && s.captured >= 48) smos__end(w, SMOS__WIRE_NOT_IP);
    else smos__after(w, s, size < 48 ? 48 : size, smos__ip);
}

/* Endace: 16 bytes, extensions of 8 while the type's highest bit is set, the kind's own header. */
static void endace(smos__walk_t *w, smos__span_t s)
{
    if (s.captured < 16) {
        cut(w, s, 16);
        return;
    }
    uint32_t kind = s.at[8], size = 16, wire = smos__be16(s.at + 14);
    for (uint32_t more = kind; more & 0x80; size += 8) {
        if (s.captured < size + 8) {
            cut(w, s, size + 8);
            return;
        }
        more = s.at[size];
    }
    kind &= 0x7f;
    if (kind == 2 || kind == 11 || kind == 16) size += 2; /* Ethernet, with colour, with queue: offset and pad */
    if (s.captured < size) {
        cut(w, s, size);
        return;
    }
    s = smos__clamp(smos__skip(s, size), wire);
    switch (kind) {
    case 1: smos__link(w, s, 104); return; /* HDLC over POS */
    case 2:
    case 11:
    case 16: smos__ethernet(w, s); return;
    case 22: smos__ipv4(w, s); return;
    case 23: smos__ipv6(w, s); return;
    default: smos__end(w, SMOS__WIRE_NOT_IP);
    }
}

/* Darwin: its length and the link type within, both in the host's order. */
static void pktap(smos__walk_t *w, smos__span_t s)
{
    uint32_t length = s.captured >= 12 ? le32(s.at) : 12, kind = s.captured >= 12 ? le32(s.at + 8) : 0;
    if (s.captured < 12 || length < 12 || length > s.captured) cut(w, s, length < 12 || length > 4096 ? 12 : length);
    else if (kind == 258 || kind == 149 || !smos__deeper(w)) smos__end(w, SMOS__WIRE_NOT_IP);
    else smos__link(w, smos__skip(s, length), kind);
}

int smos__rare_link(smos__walk_t *w, smos__span_t s, uint32_t linktype)
{
    switch (linktype) {
    case 105: monitor(w, s); return 1;
    case 127: radiotap(w, s); return 1;
    case 119:
    case 163: prism(w, s); return 1;
    case 107: frame_relay(w, s); return 1;
    case 206: directed(w, s, 107); return 1;
    case 204: directed(w, s, 9); return 1;
    case 205: directed(w, s, 104); return 1;
    case 166: smos__after(w, s, 2, smos__ppp); return 1; /* as pppd writes it: the direction in the address's place */
    case 51: smos__ethertype(w, s, 0x8864); return 1;   /* PPPoE */
    case 109: smos__after(w, s, 12, smos__ip); return 1; /* ENC: OpenBSD's IPsec */
    case 117: pflog(w, s); return 1;
    case 122: smos__after(w, s, 16, smos__llc); return 1; /* IP over Fibre Channel */
    case 123: smos__after(w, s, 4, smos__llc); return 1;  /* SunATM: flags, path, circuit */
    case 138: typed(w, s, 18, 16); return 1;              /* IP over IEEE 1394 */
    case 197: endace(w, s); return 1;                     /* ERF */
    case 226: smos__after(w, s, 24, smos__ip); return 1; /* IPNET: Solaris */
    case 149:
    case 258: pktap(w, s); return 1;
    default: return 0;
    }
}
