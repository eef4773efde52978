#include "flow/table.h"


/* Seven tenths full at capacity: with that, and the bound on probes, no flow is refused before the arena is full (simulated for 10^6). */
uint32_t smos__table_buckets(uint32_t capacity)
{
    uint64_t n = (uint64_t)capacity * 10 / (SMOS__BUCKET_ENTRIES * 7) + 64;
    return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}


static smos__bucket_t *next_bucket(const smos__table_t *t, smos__bucket_t *b)
{
    return b + 1 == t->buckets + t->count ? t->buckets : b + 1;
}


uint32_t smos__table_find(const smos__table_t *t, const smos__flow_t *flows, uint32_t hash, const smos_tuple_t *key, int *direction)
{
    smos__bucket_t *b = smos__table_bucket(t, hash);
    for (int probe = 0; probe < SMOS__MAX_PROBES; probe++, b = next_bucket(t, b)) {
        for (int i = 0; i < SMOS__BUCKET_ENTRIES; i++) {
            if (b->hash[i] == hash && b->index[i] && smos__tuple_match(&flows[b->index[i] - 1].tuple, key, direction))
                return b->index[i] - 1;
        }
        if (!b->passed) break;
    }
    return SMOS__NO_FLOW;
}


uint32_t smos__table_hint(const smos__table_t *t, uint32_t hash)
{
    const smos__bucket_t *b = smos__table_bucket(t, hash);
    for (int i = 0; i < SMOS__BUCKET_ENTRIES; i++)
        if (b->hash[i] == hash && b->index[i]) return b->index[i] - 1;
    return SMOS__NO_FLOW;
}


bool smos__table_insert(smos__table_t *t, uint32_t hash, uint32_t index)
{
    smos__bucket_t *home = smos__table_bucket(t, hash), *b = home;
    for (int probe = 0; probe < SMOS__MAX_PROBES; probe++, b = next_bucket(t, b)) {
        for (int i = 0; i < SMOS__BUCKET_ENTRIES; i++) {
            if (b->index[i]) continue;
            b->index[i] = index + 1;
            b->hash[i] = hash;
            for (; home != b; home = next_bucket(t, home)) home->passed++;
            return true;
        }
    }
    return false;
}


void smos__table_remove(smos__table_t *t, uint32_t hash, uint32_t index)
{
    smos__bucket_t *home = smos__table_bucket(t, hash), *b = home;
    for (int probe = 0; probe < SMOS__MAX_PROBES; probe++, b = next_bucket(t, b)) {
        for (int i = 0; i < SMOS__BUCKET_ENTRIES; i++) {
            if (b->index[i] != index + 1) continue;
            b->index[i] = 0;
            b->hash[i] = 0;
            for (; home != b; home = next_bucket(t, home)) home->passed--;
            return;
        }
    }
}
