#include "flow/table.h"

#include <string.h>


#define LEAST_BUCKETS 1024  /* at least 2 * SMOS__MAX_PROBES: what a split moves never lands where it is still looking */
#define FIRST_BUCKETS 32768 /* 2 MiB, one large page */
#define FULL 2             /* entries per bucket at which the table grows: one that was not split yet holds twice as many as one that was */


/* A power of two, so that in the end all are split: from 2 to 4 entries a bucket at capacity. With that, and the bound on probes, no flow is
 * refused before the arena is full. */
static uint32_t most_buckets(uint32_t capacity)
{
    uint32_t n = LEAST_BUCKETS;
    while (n < capacity / 4 && n < 1u << 30) n *= 2;
    return n;
}


size_t smos__table_bytes(uint32_t capacity)
{
    return ((size_t)most_buckets(capacity) + SMOS__MAX_PROBES) * sizeof(smos__bucket_t);
}


void smos__table_init(smos__table_t *t, void *memory, uint32_t capacity)
{
    t->buckets = memory;
    t->max = most_buckets(capacity);
    t->count = t->max < FIRST_BUCKETS ? t->max : FIRST_BUCKETS;
    t->mask = 2 * t->count - 1;
    t->entries = 0;
}


uint32_t smos__table_find(const smos__table_t *t, const smos__flow_t *flows, uint32_t hash, const smos_tuple_t *key, int *direction)
{
    const smos__bucket_t *b = smos__table_bucket(t, hash);
    for (int probe = 0; probe < SMOS__MAX_PROBES; probe++, b++) {
        for (uint32_t bits = smos__same_hash(b, hash); bits; bits &= bits - 1) {
            uint32_t entry = b->index[__builtin_ctz(bits)];
            if (entry && smos__tuple_match(&flows[entry - 1].tuple, key, direction)) return entry - 1;
        }
        if (!b->passed) break;
    }
    return SMOS__NO_FLOW;
}


/* The entry leaves bucket b; those from its home on that it passed by are told. */
static void take_out(smos__bucket_t *home, smos__bucket_t *b, int i)
{
    b->index[i] = 0;
    b->hash[i] = 0;
    for (; home != b; home++) home->passed--;
}


static bool put(smos__bucket_t *home, uint32_t hash, uint32_t entry)
{
    smos__bucket_t *b = home;
    for (int probe = 0; probe < SMOS__MAX_PROBES; probe++, b++) {
        for (int i = 0; i < SMOS__BUCKET_ENTRIES; i++) {
            if (b->index[i]) continue;
            b->index[i] = entry;
            b->hash[i] = hash;
            for (; home != b; home++) home->passed++;
            return true;
        }
    }
    return false;
}


/* Is there room for n entries whose home is b? */
static bool has_room(const smos__bucket_t *b, int n)
{
    for (int probe = 0; probe < SMOS__MAX_PROBES; probe++, b++)
        for (int i = 0; i < SMOS__BUCKET_ENTRIES; i++) {
            n -= !b->index[i];
            if (n <= 0) return true;
        }
    return false;
}


/* Entries on the way from bucket b on whose hash, masked, is `at`; `to` if not NULL is where they move. */
static int wander(smos__table_t *t, smos__bucket_t *old, uint32_t at, smos__bucket_t *to)
{
    int found = 0;
    smos__bucket_t *b = old;
    for (int probe = 0; probe < SMOS__MAX_PROBES; probe++, b++) {
        for (int i = 0; i < SMOS__BUCKET_ENTRIES; i++) {
            uint32_t hash = b->hash[i];
            if (!b->index[i] || (hash & t->mask) != at) continue;
            found++;
            if (to && put(to, hash, b->index[i])) take_out(old, b, i);
        }
        if (!b->passed) break;
    }
    return found;
}


/* One more home: about half of what has its home in its sister moves there. */
static void split(smos__table_t *t)
{
    uint32_t fresh = t->count, half = (t->mask + 1) / 2;
    smos__bucket_t *old = &t->buckets[fresh - half], *to = &t->buckets[fresh];
    if (!has_room(to, wander(t, old, fresh, NULL))) return;
    wander(t, old, fresh, to);
    t->count++;
    if (t->count > t->mask) t->mask = 2 * t->mask + 1;
    __builtin_prefetch(&t->buckets[t->count], 1);
    __builtin_prefetch(&t->buckets[t->count - (t->mask + 1) / 2], 1);
}


bool smos__table_insert(smos__table_t *t, uint32_t hash, uint32_t index)
{
    if (t->entries >= t->count * FULL && t->count < t->max) split(t);
    if (!put(smos__table_bucket(t, hash), hash, index + 1)) return false;
    t->entries++;
    return true;
}


void smos__table_remove(smos__table_t *t, uint32_t hash, uint32_t index)
{
    smos__bucket_t *home = smos__table_bucket(t, hash), *b = home;
    for (int probe = 0; probe < SMOS__MAX_PROBES; probe++, b++) {
        for (int i = 0; i < SMOS__BUCKET_ENTRIES; i++) {
            if (b->index[i] != index + 1) continue;
            take_out(home, b, i);
            t->entries--;
            return;
        }
    }
}


void smos__table_clear(smos__table_t *t)
{
    memset(t->buckets, 0, ((size_t)t->count + SMOS__MAX_PROBES) * sizeof *t->buckets);
    t->entries = 0;
}
