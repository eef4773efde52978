/* sum.h: the inner loop of the Internet checksum (RFC 1071), eight bytes at a time; ones' complement sums do not mind the byte order. */
#ifndef SMOS__SUM_H
#define SMOS__SUM_H

#include <stdint.h>
#include <string.h>

#ifdef __x86_64__
#define SMOS__SUM_WIDE 256 /* bytes from which on the wide loop pays */
/* Of n / 64 * 64 bytes; n is at most 2^31. Only where the processor has AVX2. */
uint64_t smos__sum_avx2(const uint8_t *p, uint32_t n);
#endif

/* Ones' complement sum of `n` bytes in memory order, as 64 bits still to be folded. */
static inline __attribute__((always_inline)) uint64_t smos__sum64(const uint8_t *p, uint32_t n, uint64_t sum)
{
#ifdef __x86_64__
    if (n >= SMOS__SUM_WIDE && __builtin_cpu_supports("avx2")) {
        uint64_t wide = smos__sum_avx2(p, n);
        sum += wide;
        sum += sum < wide;
        p += n & ~63u;
        n &= 63;
    }
    for (; n >= 64; n -= 64, p += 64)
        __asm__("addq (%1), %0\n\tadcq 8(%1), %0\n\tadcq 16(%1), %0\n\tadcq 24(%1), %0\n\tadcq 32(%1), %0\n\tadcq 40(%1), %0\n\t"
                "adcq 48(%1), %0\n\tadcq 56(%1), %0\n\tadcq $0, %0"
                : "+r"(sum)
                : "r"(p), "m"(*(const uint8_t(*)[64])p)
                : "cc");
#endif
    for (; n >= 16; n -= 16, p += 16) {
        uint64_t v[2];
        memcpy(v, p, 16);
        sum += v[0];
        sum += sum < v[0];
        sum += v[1];
        sum += sum < v[1];
    }
    if (n & 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        sum += v;
        sum += sum < v;
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
    sum += rest;
    return sum + (sum < rest);
}

/* Of an IPv4 header without options. */
static inline uint64_t smos__sum20(const uint8_t *p)
{
    uint32_t v[5];
    memcpy(v, p, 20);
    return (uint64_t)v[0] + v[1] + v[2] + v[3] + v[4];
}

static inline __attribute__((always_inline)) uint16_t smos__fold16(uint64_t sum)
{
    sum = (sum >> 32) + (sum & 0xffffffff);
    sum = (sum >> 32) + (sum & 0xffffffff);
    uint32_t s = (uint32_t)(sum >> 16) + (uint32_t)(sum & 0xffff);
    return (uint16_t)((s >> 16) + s);
}

#endif
