/* checksum.c: the Internet checksum (RFC 1071), added eight bytes at a time; ones' complement sums do not mind the byte order. */
#include "wire/walk.h"

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

static inline uint64_t add(uint64_t sum, uint64_t v)
{
    sum += v;
    return sum + (sum < v); /* the carry comes back in */
}

static inline uint32_t fold(uint64_t sum)
{
    sum = (sum >> 32) + (sum & 0xffffffff);
    sum = (sum >> 32) + (sum & 0xffffffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    return (uint32_t)sum;
}

static inline uint64_t halves(const uint8_t *p)
{
    uint64_t v = load64(p);
    return (v & 0xffffffff) + (v >> 32);
}

/* In memory order. Long runs go in four chains without carries, which the compiler can make vectors of. */
static inline uint64_t raw_sum(const uint8_t *p, uint32_t n)
{
    uint64_t a = 0, b = 0, c = 0, d = 0;
    for (; n >= 32; n -= 32, p += 32) {
        a += halves(p);
        b += halves(p + 8);
        c += halves(p + 16);
        d += halves(p + 24);
    }
    a += b + c + d; /* at most 2^27 steps of 2^33 each */
    for (; n >= 8; n -= 8, p += 8) a += halves(p);
    if (n & 4) {
        uint32_t v;
        memcpy(&v, p, 4);
        a += v;
        p += 4;
    }
    if (n & 2) {
        uint16_t v;
        memcpy(&v, p, 2);
        a += v;
        p += 2;
    }
    if (n & 1) a += *p;
    return a;
}

uint32_t smos__checksum(const uint8_t *data, uint32_t length, uint32_t sum)
{
    uint32_t own = __builtin_bswap16((uint16_t)fold(raw_sum(data, length)));
    return fold((uint64_t)own + sum);
}

uint32_t smos__transport_sum(const smos__walk_t *w, const smos_tuple_t *t, const uint8_t *p, uint32_t length, uint32_t proto)
{
    uint64_t sum = raw_sum(p, length);
    sum = add(sum, (uint64_t)__builtin_bswap32(length) + __builtin_bswap32(proto));
    if (t->version == 4) {
        uint32_t a, b;
        memcpy(&a, t->src + 12, 4);
        memcpy(&b, t->dst + 12, 4);
        sum = add(sum, (uint64_t)a + b);
    } else {
        const uint8_t *src = w->sum_src ? w->sum_src : t->src, *dst = w->sum_dst ? w->sum_dst : t->dst;
        for (int i = 0; i < 16; i += 8) sum = add(add(sum, load64(src + i)), load64(dst + i));
    }
    return __builtin_bswap16((uint16_t)fold(sum));
}
