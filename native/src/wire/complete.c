#include "wire/complete.h"

#include "wire/bytes.h"
#include "wire/sum.h"

enum { TCP = 6, UDP = 17 };

/* Where the transport header begins and how many bytes of it and behind it belong to the packet; 0: none that could be bare. */
static uint32_t transport(const uint8_t *ip, uint32_t have, uint32_t *length, uint8_t *proto, uint64_t *pseudo)
{
    uint32_t header, total;
    if (ip[0] >> 4 == 4) {
        header = (ip[0] & 15u) * 4;
        total = smos__be16(ip + 2);
        if (header < 20 || total < header || total > have || smos__be16(ip + 6) & 0x3fff) return 0;
        *proto = ip[9];
        *pseudo = smos__sum64(ip + 12, 8, 0);
    } else {
        header = 40;
        total = have < 40 ? 0 : 40u + smos__be16(ip + 4);
        if (ip[0] >> 4 != 6 || total < header || total > have) return 0;
        *proto = ip[6];
        *pseudo = smos__sum64(ip + 8, 32, 0);
    }
    *length = total - header;
    *pseudo += __builtin_bswap16((uint16_t)*length);
    *pseudo += (uint64_t)__builtin_bswap16(*proto);
    return header;
}


bool smos__complete_checksum(uint8_t *frame, uint32_t length)
{
    uint32_t at = 14;
    if (length < at + 20) return false;
    uint16_t type = smos__be16(frame + 12);
    for (int tags = 0; tags < 2 && (type == 0x8100 || type == 0x88a8); tags++, at += 4) {
        if (length < at + 24) return false;
        type = smos__be16(frame + at + 2);
    }
    if (type != 0x0800 && type != 0x86dd) return false;
    uint8_t *l4 = frame + at, proto;
    uint32_t bytes;
    uint64_t pseudo;
    uint32_t header = transport(l4, length - at, &bytes, &proto, &pseudo);
    if (!header) return false;
    l4 += header;
    uint32_t place = proto == TCP ? 16 : 6;
    if ((proto != TCP && proto != UDP) || bytes < (proto == TCP ? 20u : 8u)) return false;
    uint16_t field;
    memcpy(&field, l4 + place, 2);
    if (field != smos__fold16(pseudo)) return false;
    uint16_t whole = (uint16_t)~smos__fold16(smos__sum64(l4, bytes, 0)); /* the field lends the sum of the pseudo-header */
    if (proto == UDP && !whole) whole = 0xffff;
    memcpy(l4 + place, &whole, 2);
    return whole != field;
}
