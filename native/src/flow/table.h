/* table.h: from a key to a slot. Open addressing over cache-line buckets of seven entries, bounded probes, keyed hash.
 *
 * A bucket counts the entries that passed it by because it was full; a look-up goes on only while that count is not zero, so
 * removal leaves no tombstones. The table grows with its flows, a bucket at a time (linear hashing, W. Litwin, 1980): few flows stay
 * close together in memory, and no packet waits for a table to be built anew.
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

static inline uint64_t smos__hash_end(const smos__table_t *t, const uint8_t address[16], uint16_t port, uint8_t version)
{
    uint64_t a[2];
    __builtin_memcpy(a, address, 16);
    if (version == 4) return smos__mul_fold((a[1] ^ (uint64_t)port << 13) + t->key[0], (a[1] >> 32) + t->key[1]); /* the rest of the address is the same for all */
    return smos__mul_fold(a[0] + t->key[0], (a[1] ^ (uint64_t)port << 13) + t->key[1]) + smos__mul_fold(a[1] + t->key[2], port + t->key[3]);
}

static inline uint32_t smos__table_hash(const smos__table_t *t, const smos_tuple_t *k)
{
    uint64_t ends = smos__hash_end(t, k->src, k->sport, k->version) + smos__hash_end(t, k->dst, k->dport, k->version);
    uint64_t rest = (uint64_t)k->proto | (uint64_t)k->version << 8 | (uint64_t)k->vlan << 16 | (uint64_t)k->tunnel << 32;
    uint64_t h = smos__mul_fold(ends + rest + t->key[4], t->key[5] | 1);
    return (uint32_t)(h ^ h >> 32);
}

static inline smos__bucket_t *smos__table_bucket(const smos__table_t *t, uint32_t hash)
{
    uint32_t at = hash & t->mask;
    return &t->buckets[at & t->mask >> (at >= t->count)]; /* without a branch: it could not be foretold */
}

/* The same flow? *direction is then SMOS_CLIENT if `k` goes from the flow's client, else SMOS_SERVER. */
static inline bool smos__tuple_match(const smos_tuple_t *flow, const smos_tuple_t *k, int *direction)
{
    uint64_t f[5], p[5];
    __builtin_memcpy(f, flow, 40);
    __builtin_memcpy(p, k, 40);
    if (flow->tunnel != k->tunnel) return false;
    /* Ports lie in the first four bytes of the fifth word, source first: equal one way, or turned. Without a branch: which way could not be foretold. */
    uint64_t turned = (p[4] & 0xffffffff00000000u) | (uint32_t)((uint32_t)p[4] << 16 | (uint32_t)p[4] >> 16);
    uint64_t differs = (f[4] ^ p[4]) | (f[1] ^ p[1]) | (f[3] ^ p[3]) | (f[0] ^ p[0]) | (f[2] ^ p[2]);
    uint64_t differs_turned = (f[4] ^ turned) | (f[1] ^ p[3]) | (f[3] ^ p[1]) | (f[0] ^ p[2]) | (f[2] ^ p[0]);
    if (differs && differs_turned) return false;
    *direction = differs ? SMOS_SERVER : SMOS_CLIENT;
    return true;
}

/* The slot, or SMOS__NO_FLOW; `flows` are the hot records. */
uint32_t smos__table_find(const smos__table_t *, const smos__flow_t *flows, uint32_t hash, const smos_tuple_t *key, int *direction);
/* A slot whose hash agrees, without looking at the flow: for prefetching. */
uint32_t smos__table_hint(const smos__table_t *, uint32_t hash);
bool smos__table_insert(smos__table_t *, uint32_t hash, uint32_t index); /* false: no room within the probes */
void smos__table_remove(smos__table_t *, uint32_t hash, uint32_t index);
void smos__table_clear(smos__table_t *); /* of all entries; it stays as large as it is */

#endif
