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

#ifdef __x86_64__
#define SMOS__SUM_LONG 256 /* bytes from which on a call pays, which looks for a wide loop */
uint64_t smos__sum_long(const uint8_t *p, uint32_t n, uint64_t sum); /* as smos__sum64 */

/* Of 64 bytes. */
static inline uint64_t smos__sum_block(const uint8_t *p, uint64_t sum)
{
    __asm__("addq (%1), %0\n\tadcq 8(%1), %0\n\tadcq 16(%1), %0\n\tadcq 24(%1), %0\n\tadcq 32(%1), %0\n\tadcq 40(%1), %0\n\t"
            "adcq 48(%1), %0\n\tadcq 56(%1), %0\n\tadcq $0, %0"
            : "+r"(sum)
            : "r"(p), "m"(*(const uint8_t(*)[64])p)
            : "cc");
    return sum;
}
#endif

/* Of less than 64 bytes. */
static inline __attribute__((always_inline)) uint64_t smos__sum_short(const uint8_t *p, uint32_t n, uint64_t sum)
{
#ifdef __x86_64__
    if (n & 32) {
        __asm__("addq (%1), %0\n\tadcq 8(%1), %0\n\tadcq 16(%1), %0\n\tadcq 24(%1), %0\n\tadcq $0, %0" : "+r"(sum) : "r"(p), "m"(*(const uint8_t(*)[32])p) : "cc");
        p += 32;
    }
    if (n & 16) {
        __asm__("addq (%1), %0\n\tadcq 8(%1), %0\n\tadcq $0, %0" : "+r"(sum) : "r"(p), "m"(*(const uint8_t(*)[16])p) : "cc");
        p += 16;
    }
#else
    for (; n >= 16; n -= 16, p += 16) {
        uint64_t v[2];
        memcpy(v, p, 16);
        sum = smos__sum_carry(smos__sum_carry(sum, v[0]), v[1]);
    }
#endif
    if (n & 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        sum = smos__sum_carry(sum, v);
        p += 8;
    }
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

/* Ones' complement sum of `n` bytes in memory order, as 64 bits still to be folded; n is at most 2^31. */
static inline __attribute__((always_inline)) uint64_t smos__sum64(const uint8_t *p, uint32_t n, uint64_t sum)
{
#ifdef __x86_64__
    if (n >= SMOS__SUM_LONG) return smos__sum_long(p, n, sum);
    for (; n >= 64; n -= 64, p += 64) sum = smos__sum_block(p, sum);
#endif
    return smos__sum_short(p, n, sum);
}

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
