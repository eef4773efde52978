/* sum.h: the inner loop of the Internet checksum (RFC 1071), eight bytes at a time; ones' complement sums do not mind the byte order. */
#ifndef SMOS__SUM_H
#define SMOS__SUM_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t smos__sum_carry(uint64_t sum, uint64_t v)
{
    sum += v;
    return sum + (sum < v);
}

static inline __attribute__((always_inline)) uint64_t smos__sum_word(const uint8_t *p, uint64_t sum)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return smos__sum_carry(sum, v);
}

/* Of less than 32 bytes. */
static inline __attribute__((always_inline)) uint64_t smos__sum_short(const uint8_t *p, uint32_t n, uint64_t sum)
{
    for (; n >= 8; n -= 8, p += 8) sum = smos__sum_word(p, sum);
    uint64_t rest = 0; /* the last bytes, as they would lie in a word padded with zeros */
    if (n & 4) {
        uint32_t v;
        memcpy(&v, p, 4);
        rest = v;
        p += 4;
    }
    if (n & 2) {
        uint16_t v;
        memcpy(&v, p, 2);
        rest += v;
        p += 2;
    }
    if (n & 1) rest += *p;
    return smos__sum_carry(sum, rest);
}

/* Of 32 bytes. */
static inline __attribute__((always_inline)) uint64_t smos__sum_block(const uint8_t *p, uint64_t sum)
{
#ifdef __x86_64__
    __asm__("addq (%1), %0\n\tadcq 8(%1), %0\n\tadcq 16(%1), %0\n\tadcq 24(%1), %0\n\tadcq $0, %0" : "+r"(sum) : "r"(p), "m"(*(const uint8_t(*)[32])p) : "cc");
#else
    for (int i = 0; i < 32; i += 8) sum = smos__sum_word(p + i, sum);
#endif
    return sum;
}

#define SMOS__SUM_LONG 256 /* bytes from which on a call pays, which looks for a wide loop */
uint64_t smos__sum_long(const uint8_t *p, uint32_t n, uint64_t sum); /* of whole blocks of 64 bytes */

extern const uint8_t smos__sum_mask[64]; /* 32 zeros, then 32 times 0xff */

/* Of at least 32 bytes: blocks, then the last 32 bytes once more without those that were in a block. How many of these count could not be foretold, so
 * nothing branches on it; where they begin at an odd place, all words of theirs are turned around. */
static inline __attribute__((always_inline)) uint64_t smos__sum_blocks(const uint8_t *p, uint32_t n, uint64_t sum)
{
    const uint8_t *last = p + n - 32;
    const uint8_t *mask = smos__sum_mask + (n & 31);
    if (__builtin_expect(n >= SMOS__SUM_LONG, 0)) {
        sum = smos__sum_long(p, n & ~63u, sum);
        p += n & ~63u;
    }
    for (; p <= last; p += 32) sum = smos__sum_block(p, sum);
    uint64_t words[4], rest = 0;
    for (int i = 0; i < 4; i++) {
        uint64_t m;
        memcpy(&words[i], last + i * 8, 8);
        memcpy(&m, mask + i * 8, 8);
        words[i] &= m;
    }
#ifdef __x86_64__
    __asm__("addq %2, %0\n\tadcq %3, %0\n\tadcq %4, %0\n\tadcq $0, %0" : "=r"(rest) : "0"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3]) : "cc");
#else
    for (int i = 0; i < 4; i++) rest = smos__sum_carry(rest, words[i]);
#endif
    uint32_t turn = (n & 1) * 8;
    return smos__sum_carry(sum, rest << turn | rest >> (-turn & 63));
}

/* Ones' complement sum of `n` bytes in memory order, as 64 bits still to be folded; n is at most 2^31. */
static inline __attribute__((always_inline)) uint64_t smos__sum64(const uint8_t *p, uint32_t n, uint64_t sum) { return n < 32 ? smos__sum_short(p, n, sum) : smos__sum_blocks(p, n, sum); }

/* Does a sum that is not 0 fold to 0xffff? It does if 0xffff divides it: then, and only then, its product with the inverse of 0xffff modulo 2^64 is one
 * of the multiples' places (H. S. Warren, Hacker's Delight, 10-17). */
static inline bool smos__sum_right(uint64_t sum) { return sum * UINT64_C(0xfffefffefffeffff) <= UINT64_MAX / 0xffff; }

static inline __attribute__((always_inline)) uint16_t smos__fold16(uint64_t sum)
{
    sum = (sum >> 32) + (sum & 0xffffffff);
    sum = (sum >> 32) + (sum & 0xffffffff);
    uint32_t s = (uint32_t)(sum >> 16) + (uint32_t)(sum & 0xffff);
    return (uint16_t)((s >> 16) + s);
}

#endif
