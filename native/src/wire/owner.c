/* owner.c: who owns a flow. 32-bit adds, multiplies, xors and shifts only, so that a cBPF program can compute it. */
#include "wire/bytes.h"
#include "wire/decode.h"

uint32_t smos__owner_hash(const smos_tuple_t *t, uint32_t seed)
{
    uint32_t h = seed;
    for (int i = 0; i < 16; i += 4) { /* sum and xor are the same in both directions */
        uint32_t a = smos__be32(t->src + i), b = smos__be32(t->dst + i);
        h = (h ^ (a + b)) * 0x9e3779b1u;
        h = (h ^ (a ^ b)) * 0x85ebca6bu;
    }
    uint32_t a = t->sport, b = t->dport;
    h = (h ^ ((a + b) << 8) ^ t->proto) * 0x9e3779b1u;
    h = (h ^ (a ^ b)) * 0x85ebca6bu;
    h ^= h >> 16;
    h *= 0x85ebca6bu;
    h ^= h >> 13;
    h *= 0xc2b2ae35u;
    return h ^ h >> 16;
}
