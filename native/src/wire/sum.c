/* sum.c: the checksum's inner loop where the processor has AVX2, told at run time. */
#include "wire/sum.h"

#ifdef __x86_64__
#include <immintrin.h>

__attribute__((target("avx2"))) uint64_t smos__sum_avx2(const uint8_t *p, uint32_t n)
{
    /* The two halves of each 64-bit word are added apart: 32 bits of room for carries are more than 64 KiB can fill. 2^32 is 1 here. */
    const __m256i low = _mm256_set1_epi64x(0xffffffff);
    __m256i even[2] = { _mm256_setzero_si256(), _mm256_setzero_si256() }, odd[2] = { _mm256_setzero_si256(), _mm256_setzero_si256() };
    for (; n >= 64; n -= 64, p += 64) {
        for (int i = 0; i < 2; i++) {
            __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)p + i);
            even[i] = _mm256_add_epi64(even[i], _mm256_and_si256(v, low));
            odd[i] = _mm256_add_epi64(odd[i], _mm256_srli_epi64(v, 32));
        }
    }
    __m256i all = _mm256_add_epi64(_mm256_add_epi64(even[0], odd[0]), _mm256_add_epi64(even[1], odd[1]));
    __m128i half = _mm_add_epi64(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    return (uint64_t)_mm_cvtsi128_si64(half) + (uint64_t)_mm_extract_epi64(half, 1);
}
#endif
