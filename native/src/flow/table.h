/* table.h: from a key to a slot. Open addressing over cache-line buckets of seven entries, bounded probes, keyed hash.
 *
 * A bucket counts the entries that passed it by because it was full; a look-up goes on only while that count is not zero, so
 * removal leaves no tombstones. The table grows with its flows, a bucket at a time (linear hashing, W. Litwin, 1980): few flows stay
 * close together in memory, and no packet waits for a table to be built anew.
 */
#ifndef SMOS__TABLE_H
#define SMOS__TABLE_H

#include <stdbool.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "flow/flow.h"

#define SMOS__BUCKET_ENTRIES 7
#define SMOS__MAX_PROBES 64 /* buckets; beyond, the table counts as full */

typedef struct smos__bucket {
    uint32_t index[SMOS__BUCKET_ENTRIES]; /* slot + 1, 0 free */
    uint32_t passed;
    uint32_t hash[SMOS__BUCKET_ENTRIES];
    uint32_t reserved;
} __attribute__((aligned(64))) smos__bucket_t;

typedef struct smos__table {
    smos__bucket_t *buckets; /* owned by the caller, zeroed, smos__table_bytes */
    uint32_t count;          /* of buckets that are in use as homes; those behind take what overflows from the last ones */
    uint32_t max;            /* to which it may grow */
    uint32_t mask;           /* the least 2^n - 1 that is not below count */
    uint32_t entries;
    uint64_t key[6];         /* secret */
} smos__table_t;

/* Memory for a table of up to `capacity` flows; what few flows do not need stays untouched. */
size_t smos__table_bytes(uint32_t capacity);
/* In zeroed memory. The key is the caller's to set. */
void smos__table_init(smos__table_t *, void *memory, uint32_t capacity);

/* Keyed, symmetric in the two ends. Universal (NH, Black et al., UMAC, 1999) on each end with 64-bit secret words, summed, then
 * mixed: who does not know the key cannot aim at a bucket. */
static inline uint64_t smos__mul_fold(uint64_t a, uint64_t b)
{
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t smos__hash_end(const smos__table_t *t, const uint8_t address[16], uint16_t port)
{
    uint64_t a[2];
    __builtin_memcpy(a, address, 16);
    return smos__mul_fold(a[0] + t->key[0], (a[1] ^ (uint64_t)port << 13) + t->key[1]) + smos__mul_fold(a[1] + t->key[2], port + t->key[3]);
}

/* `address` as it lies in memory: the rest of a mapped one is the same for all. */
static inline uint64_t smos__hash_end4(const smos__table_t *t, uint32_t address, uint16_t port)
{
    return smos__mul_fold(((uint64_t)address << 16 | port) + t->key[0], address + t->key[1]);
}

static inline uint32_t smos__hash_all(const smos__table_t *t, uint64_t ends, uint32_t protocol, uint32_t tunnel)
{
    uint64_t h = smos__mul_fold(ends + (protocol | (uint64_t)tunnel << 32) + t->key[4], t->key[5] | 1);
    return (uint32_t)(h ^ h >> 32);
}

static inline uint32_t smos__table_hash(const smos__table_t *t, const smos_tuple_t *k)
{
    uint32_t protocol, source, destination; /* protocol with version and VLAN */
    __builtin_memcpy(&protocol, &k->proto, 4);
    __builtin_memcpy(&source, k->src + 12, 4);
    __builtin_memcpy(&destination, k->dst + 12, 4);
    uint64_t ends = k->version == 4 ? smos__hash_end4(t, source, k->sport) + smos__hash_end4(t, destination, k->dport)
                                    : smos__hash_end(t, k->src, k->sport) + smos__hash_end(t, k->dst, k->dport);
    return smos__hash_all(t, ends, protocol, k->tunnel);
}
_Static_assert(offsetof(smos_tuple_t, version) == offsetof(smos_tuple_t, proto) + 1 && offsetof(smos_tuple_t, vlan) == offsetof(smos_tuple_t, proto) + 2, "read as one word");

static inline smos__bucket_t *smos__table_bucket(const smos__table_t *t, uint32_t hash)
{
    uint32_t at = hash & t->mask;
    return &t->buckets[at & t->mask >> (at >= t->count)]; /* without a branch: it could not be foretold */
}

/* The same flow? *direction is then SMOS_CLIENT if `k` goes from the flow's client, else SMOS_SERVER. Equal one way, or turned; without a branch: which way could
 * not be foretold. Ports lie in the first four bytes of the last word, source first. */
static inline bool smos__tuple_match(const smos_tuple_t *flow, const smos_tuple_t *k, int *direction)
{
    uint64_t f, p;
    __builtin_memcpy(&f, &flow->sport, 8);
    __builtin_memcpy(&p, &k->sport, 8);
    uint64_t turned = (p & 0xffffffff00000000u) | (uint32_t)((uint32_t)p << 16 | (uint32_t)p >> 16);
#ifdef __SSE2__
    const __m128i *a = (const __m128i *)(const void *)flow->src, *b = (const __m128i *)(const void *)k->src;
    const __m128i source = _mm_loadu_si128(a), destination = _mm_loadu_si128(a + 1), from = _mm_loadu_si128(b), to = _mm_loadu_si128(b + 1);
    uint64_t differs = (f ^ p) | (uint32_t)(_mm_movemask_epi8(_mm_and_si128(_mm_cmpeq_epi8(source, from), _mm_cmpeq_epi8(destination, to))) ^ 0xffff);
    uint64_t differs_turned = (f ^ turned) | (uint32_t)(_mm_movemask_epi8(_mm_and_si128(_mm_cmpeq_epi8(source, to), _mm_cmpeq_epi8(destination, from))) ^ 0xffff);
#else
    uint64_t a[4], b[4];
    __builtin_memcpy(a, flow->src, 32);
    __builtin_memcpy(b, k->src, 32);
    uint64_t differs = (f ^ p) | (a[1] ^ b[1]) | (a[3] ^ b[3]) | (a[0] ^ b[0]) | (a[2] ^ b[2]);
    uint64_t differs_turned = (f ^ turned) | (a[1] ^ b[3]) | (a[3] ^ b[1]) | (a[0] ^ b[2]) | (a[2] ^ b[0]);
#endif
    *direction = differs ? SMOS_SERVER : SMOS_CLIENT;
    return flow->tunnel == k->tunnel && (!differs || !differs_turned);
}
_Static_assert(offsetof(smos_tuple_t, dst) == 16 && offsetof(smos_tuple_t, sport) == 32 && offsetof(smos_tuple_t, dport) == 34 && offsetof(smos_tuple_t, tunnel) == 40, "compared as words");

/* The slot, or SMOS__NO_FLOW; `flows` are the hot records. */
uint32_t smos__table_find(const smos__table_t *, const smos__flow_t *flows, uint32_t hash, const smos_tuple_t *key, int *direction);
/* A bit for each entry of the bucket that has this hash, without a branch: where an entry stands could not be foretold. */
static inline uint32_t smos__same_hash(const smos__bucket_t *b, uint32_t hash)
{
    uint32_t bits = 0;
#ifdef __SSE2__
    const __m128i *hashes = (const __m128i *)(const void *)b->hash, wanted = _mm_set1_epi32((int)hash);
    __m128i low = _mm_cmpeq_epi32(_mm_load_si128(hashes), wanted), high = _mm_cmpeq_epi32(_mm_load_si128(hashes + 1), wanted);
    bits = (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(_mm_packs_epi32(low, high), _mm_setzero_si128()));
#else
    for (int i = 0; i < SMOS__BUCKET_ENTRIES; i++) bits |= (uint32_t)(b->hash[i] == hash) << i;
#endif
    return bits & ((1u << SMOS__BUCKET_ENTRIES) - 1);
}

/* A slot whose hash agrees, without looking at the flow: for prefetching. */
static inline uint32_t smos__bucket_hint(const smos__bucket_t *b, uint32_t hash)
{
    uint32_t bits = smos__same_hash(b, hash);
    return __builtin_expect(bits, 1) ? b->index[__builtin_ctz(bits)] - 1 : SMOS__NO_FLOW; /* 0, a free one's, becomes NO_FLOW */
}

bool smos__table_insert(smos__table_t *, uint32_t hash, uint32_t index); /* false: no room within the probes */
void smos__table_remove(smos__table_t *, uint32_t hash, uint32_t index);
void smos__table_clear(smos__table_t *); /* of all entries; it stays as large as it is */

#endif
