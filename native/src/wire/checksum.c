/* checksum.c: the Internet checksum (RFC 1071), added eight bytes at a time; ones' complement sums do not mind the byte order. */
#include "wire/sum.h"
#include "wire/walk.h"

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

uint32_t smos__checksum(const uint8_t *data, uint32_t length, uint32_t sum)
{
    uint32_t own = __builtin_bswap16(smos__fold16(smos__sum64(data, length, 0)));
    return smos__fold16((uint64_t)own + sum);
}

uint32_t smos__transport_sum(const smos__walk_t *w, const smos_tuple_t *t, const uint8_t *p, uint32_t length, uint32_t proto)
{
    uint64_t sum = smos__sum64(p, length, 0);
    sum = smos__sum_carry(sum, (uint64_t)__builtin_bswap32(length) + __builtin_bswap32(proto));
    if (t->version == 4) {
        uint32_t a, b;
        memcpy(&a, t->src + 12, 4);
        memcpy(&b, t->dst + 12, 4);
        sum = smos__sum_carry(sum, (uint64_t)a + b);
    } else {
        const uint8_t *src = w->sum_src ? w->sum_src : t->src, *dst = w->sum_dst ? w->sum_dst : t->dst;
        for (int i = 0; i < 16; i += 8) sum = smos__sum_carry(smos__sum_carry(sum, load64(src + i)), load64(dst + i));
    }
    return __builtin_bswap16(smos__fold16(sum));
}
