#include "wire/owner.h"

#include "wire/bytes.h"

uint32_t smos__owner_hash(const smos_tuple_t *t, uint32_t seed)
{
    uint32_t h = seed;
    for (int i = 0; i < 16; i += 4) {
        uint32_t a = smos__be32(t->src + i), b = smos__be32(t->dst + i);
        h = smos__owner_add(h, a + b, a ^ b);
    }
    return smos__owner_end(h, t->sport, t->dport, t->proto);
}


uint32_t smos__owner_begin4(uint32_t seed)
{
    uint32_t h = smos__owner_add(seed, 0, 0); /* ::ffff:0:0/96, where IPv4 addresses lie in a tuple */
    h = smos__owner_add(h, 0, 0);
    return smos__owner_add(h, 0xffffu + 0xffffu, 0);
}
