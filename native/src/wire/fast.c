/* fast.c: the plain case (fast.h), with at most two VLAN tags too. */
#include "wire/fast.h"

#define OPTION(kind, length) ((kind) << 8 | (length))

uint32_t smos__usual_options(const uint8_t *p, uint32_t n, bool syn, smos__layer_t *l)
{
    const uint8_t *end = p + n;
    uint32_t seen = 0, flags = 0;
    if (syn && n >= 8 && smos__be16(p) == OPTION(2, 4)) { /* nearly all begin with it, most go on with SACK permitted */
        const bool sack = smos__be16(p + 4) == OPTION(4, 2);
        l->mss = smos__be16(p + 2);
        flags = sack ? SMOS__HAS_MSS | SMOS__SACK_PERMITTED : SMOS__HAS_MSS;
        seen = sack ? 1u << 2 | 1u << 4 : 1u << 2;
        p += sack ? 6 : 4;
    }
    while (p < end) {
        if (*p <= 1) {
            if (*p == 0) break;
            p++;
            continue;
        }
        if (end - p < 2) return SMOS__UNUSUAL;
        uint32_t option = smos__be16(p), length = option & 0xff, bit = 1u << (option >> 8 & 31);
        if (length > (uint32_t)(end - p) || seen & bit) return SMOS__UNUSUAL;
        seen |= bit;
        if (option == OPTION(8, 10)) {
            l->tsval = smos__be32(p + 2);
            l->tsecr = smos__be32(p + 6);
            flags |= SMOS__HAS_TIMESTAMP;
        } else if (option >> 8 == 5 && length >= 10 && length % 8 == 2) {
            l->sack = p + 2;
            l->sack_blocks = (uint8_t)(length / 8);
            flags |= SMOS__HAS_SACK;
        } else if (!syn) {
            return SMOS__UNUSUAL;
        } else if (option == OPTION(2, 4)) {
            l->mss = smos__be16(p + 2);
            flags |= SMOS__HAS_MSS;
        } else if (option == OPTION(3, 3) && p[2] <= 14) {
            l->wscale = p[2];
            flags |= SMOS__HAS_WSCALE;
        } else if (option == OPTION(4, 2)) {
            flags |= SMOS__SACK_PERMITTED;
        } else {
            return SMOS__UNUSUAL;
        }
        p += length;
    }
    return flags;
}

/* 802.1Q, or 802.1ad and 802.1Q. */
static bool tagged(const smos__frame_t *frame, uint32_t type, smos__decoded_t *out)
{
    smos__ends4_t ends;
    const uint8_t *p = frame->data + SMOS__ETHERNET;
    uint16_t outer = smos__be16(p) & 0xfff, inner = 0;
    uint32_t link = SMOS__ETHERNET + 4;
    if (type != 0x8100 && type != 0x88a8) return false;
    type = smos__be16(p + 2);
    if (type == 0x8100) {
        inner = smos__be16(p + 4) & 0xfff;
        type = smos__be16(p + 6);
        link += 4;
    }
    if (type != 0x0800 || frame->caplen < link + SMOS__IPV4 + 20) return false;
    return smos__decode_ipv4_tcp(frame, link, outer, inner, out, &ends);
}

bool smos__decode_fast(const smos__frame_t *frame, smos__decoded_t *out)
{
    smos__ends4_t ends;
    if (!smos__is_ethernet(frame)) return false;
    uint32_t type = smos__be16(frame->data + 12);
    return type == 0x0800 ? smos__decode_ipv4_tcp(frame, SMOS__ETHERNET, 0, 0, out, &ends) : tagged(frame, type, out);
}
