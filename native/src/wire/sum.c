/* sum.c: the checksum's inner loop for long packets, where the processor has AVX2, told at run time. */
#include "wire/sum.h"

#define ONES 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff
const uint8_t smos__sum_mask[64] = {[32] = ONES, ONES, ONES, ONES};

#ifdef __x86_64__
#include <immintrin.h>

#define CHUNK 65536u /* bytes: the 32-bit sums of no more can overflow */

__attribute__((target("avx2"))) static uint64_t chunk(const uint8_t *p, uint32_t n)
{
    /* vpmaddwd adds neighbouring 16-bit words into 32 bits, but takes them as signed: with the top bit turned each is 0x8000 less. */
    const __m256i turn = _mm256_set1_epi16((short)0x8000), one = _mm256_set1_epi16(1);
    __m256i a = _mm256_setzero_si256(), b = _mm256_setzero_si256();
    const uint64_t turned = (uint64_t)(n / 64) * 32 * 0x8000;
#pragma GCC unroll 2
    for (const uint8_t *end = p + n; p != end; p += 64) {
        const __m256i *v = (const __m256i *)(const void *)p;
        a = _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_xor_si256(_mm256_loadu_si256(v), turn), one));
        b = _mm256_add_epi32(b, _mm256_madd_epi16(_mm256_xor_si256(_mm256_loadu_si256(v + 1), turn), one));
    }
    __m256i both = _mm256_add_epi64(_mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(a)), _mm256_cvtepi32_epi64(_mm256_extracti128_si256(a, 1))),
                                    _mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(b)), _mm256_cvtepi32_epi64(_mm256_extracti128_si256(b, 1))));
    __m128i half = _mm_add_epi64(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
    return (uint64_t)_mm_cvtsi128_si64(half) + (uint64_t)_mm_extract_epi64(half, 1) + turned;
}
#endif


uint64_t smos__sum_long(const uint8_t *p, uint32_t n, uint64_t sum)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2")) {
        for (; n > CHUNK; n -= CHUNK, p += CHUNK) sum = smos__sum_carry(sum, chunk(p, CHUNK));
        return smos__sum_carry(sum, chunk(p, n));
    }
#endif
    for (const uint8_t *end = p + n; p != end; p += 32) sum = smos__sum_block(p, sum);
    return sum;
}
