/* table.h: from a key to a slot. Open addressing over cache-line buckets of seven entries, bounded probes, keyed hash.
 *
 * A bucket counts the entries that passed it by because it was full; a look-up goes on only while that count is not zero, so
 * removal leaves no tombstones.
 */
#ifndef SMOS__TABLE_H
#define SMOS__TABLE_H

#include <stdbool.h>

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
    smos__bucket_t *buckets; /* owned by the caller */
    uint32_t count;
    uint64_t key[6];         /* secret */
} smos__table_t;

uint32_t smos__table_buckets(uint32_t capacity);

/* Keyed, symmetric in the two ends. Universal (NH, Black et al., UMAC, 1999) on each end with 64-bit secret words, summed, then
 * mixed: who does not know the key cannot aim at a bucket. */
static inline uint64_t smos__mul_fold(uint64_t a, uint64_t b)
{
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint32_t smos__table_hash(const smos__table_t *t, const smos_tuple_t *k)
{
    uint64_t a[2], b[2];
    __builtin_memcpy(a, k->src, 16);
    __builtin_memcpy(b, k->dst, 16);
    uint64_t one = smos__mul_fold(a[0] + t->key[0], (a[1] ^ (uint64_t)k->sport << 13) + t->key[1]) + smos__mul_fold(a[1] + t->key[2], k->sport + t->key[3]);
    uint64_t two = smos__mul_fold(b[0] + t->key[0], (b[1] ^ (uint64_t)k->dport << 13) + t->key[1]) + smos__mul_fold(b[1] + t->key[2], k->dport + t->key[3]);
    uint64_t rest = (uint64_t)k->proto | (uint64_t)k->version << 8 | (uint64_t)k->vlan << 16 | (uint64_t)k->tunnel << 32;
    uint64_t h = smos__mul_fold(one + two + rest + t->key[4], t->key[5] | 1);
    return (uint32_t)(h ^ h >> 32);
}

static inline smos__bucket_t *smos__table_bucket(const smos__table_t *t, uint32_t hash)
{
    return &t->buckets[(uint64_t)hash * t->count >> 32];
}

/* The same flow? *direction is then SMOS_CLIENT if `k` goes from the flow's client, else SMOS_SERVER. */
static inline bool smos__tuple_match(const smos_tuple_t *flow, const smos_tuple_t *k, int *direction)
{
    uint64_t f[5], p[4];
    __builtin_memcpy(f, flow, 40);
    __builtin_memcpy(p, k, 32);
    uint64_t tail;
    uint32_t tunnel;
    __builtin_memcpy(&tail, (const uint8_t *)k + 32, 8);
    __builtin_memcpy(&tunnel, &k->tunnel, 4);
    if (tunnel != flow->tunnel) return false;
    if (!((f[0] ^ p[0]) | (f[1] ^ p[1]) | (f[2] ^ p[2]) | (f[3] ^ p[3]) | (f[4] ^ tail))) {
        *direction = SMOS_CLIENT;
        return true;
    }
    /* ports lie in the first four bytes of the fifth word, source first */
    uint64_t turned = (tail & 0xffffffff00000000u) | (uint32_t)((uint32_t)tail << 16 | (uint32_t)tail >> 16);
    if (!((f[0] ^ p[2]) | (f[1] ^ p[3]) | (f[2] ^ p[0]) | (f[3] ^ p[1]) | (f[4] ^ turned))) {
        *direction = SMOS_SERVER;
        return true;
    }
    return false;
}

/* The slot, or SMOS__NO_FLOW; `flows` are the hot records. */
uint32_t smos__table_find(const smos__table_t *, const smos__flow_t *flows, uint32_t hash, const smos_tuple_t *key, int *direction);
/* A slot whose hash agrees, without looking at the flow: for prefetching. */
uint32_t smos__table_hint(const smos__table_t *, uint32_t hash);
bool smos__table_insert(smos__table_t *, uint32_t hash, uint32_t index); /* false: no room within the probes */
void smos__table_remove(smos__table_t *, uint32_t hash, uint32_t index);

#endif
