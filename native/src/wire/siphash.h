/* siphash.h: SipHash-1-3 (J.-P. Aumasson, D. J. Bernstein, 2012) over whole words; their number is left out, as it never varies for one use. */
#ifndef SMOS__SIPHASH_H
#define SMOS__SIPHASH_H

#include <stddef.h>
#include <stdint.h>

static inline uint64_t smos__rotate(uint64_t x, int by) { return x << by | x >> (64 - by); }

static inline void smos__sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = smos__rotate(v[1], 13) ^ v[0];
    v[3] = smos__rotate(v[3], 16) ^ v[2];
    v[0] = smos__rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = smos__rotate(v[1], 17) ^ v[2];
    v[3] = smos__rotate(v[3], 21) ^ v[0];
    v[2] = smos__rotate(v[2], 32);
}

static inline uint64_t smos__siphash(const uint64_t key[2], const uint64_t *words, size_t count)
{
    uint64_t v[4] = { key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du, key[0] ^ 0x6c7967656e657261u, key[1] ^ 0x7465646279746573u };
    for (size_t i = 0; i < count; i++) {
        v[3] ^= words[i];
        smos__sip_round(v);
        v[0] ^= words[i];
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++) smos__sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
