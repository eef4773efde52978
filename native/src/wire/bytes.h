/* bytes.h: unaligned big-endian reads, and IPv4 addresses as the engine keeps them. */
#ifndef SMOS__BYTES_H
#define SMOS__BYTES_H

#include <stdint.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "big-endian hosts need their own bytes.h");

static inline uint16_t smos__be16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return __builtin_bswap16(v);
}

static inline uint32_t smos__be32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return __builtin_bswap32(v);
}

/* ::ffff:a.b.c.d, from the four bytes at p */
static inline void smos__map_ipv4(uint8_t *out, const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    uint64_t high = 0, low = (uint64_t)v << 32 | 0xffff0000u;
    memcpy(out, &high, 8);
    memcpy(out + 8, &low, 8);
}

#endif
