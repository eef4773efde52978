/* Which datagrams wait, for how long, and in what memory. datagram.c keeps one, fragment.c reads the headers.
 *
 * Memory, in this order: this object, the entries, the buckets, the chunks' links, the chunks, the completed datagrams (`out`), the join's
 * tables. max_bytes is that of chunks and completed datagrams; a quarter of it, at most 64 whole datagrams, is for the completed. */
#include "wire/defrag.h"

#include <string.h>

#include "event/anomaly.h"
#include "wire/datagram.h"
#include "wire/siphash.h"

#define NO_ENTRY UINT32_MAX
#define WHOLE (SMOS__DATAGRAM_MAX + 40u + 25u + 64u) /* bytes of the largest datagram and the room before it, rounded up to 64 */
#define OUT_MOST (64 * WHOLE)
#define CHUNKS_LEAST (2 * (SMOS__LOG_MAX / SMOS__CHUNK)) /* one datagram always has room */
#define WORK_MAX (64u * 8192u)

typedef struct key {
    uint8_t src[16], dst[16];
    uint32_t id, tunnel;
    uint16_t vlan;
    uint8_t version, protocol; /* protocol: IPv4 alone */
    uint32_t zero;
} datagram_key_t;

typedef struct entry {
    datagram_key_t key;
    int64_t created_ns;
    uint32_t hash;
    uint32_t chain;        /* next of its bucket; next free entry */
    uint32_t older, newer; /* by creation */
    bool dead;             /* given up: swallows what is left of its datagram */
    smos__datagram_t datagram;
} entry_t;

struct smos__defrag {
    smos__defrag_config_t config;
    smos__defrag_stats_t stats;
    smos__chunks_t chunks;
    entry_t *entries;
    uint32_t *buckets;
    uint32_t mask;
    uint32_t free, fresh, oldest, newest;
    uint8_t *out;
    uint32_t out_bytes, out_used, largest, id;
    smos__join_t *join;
};

typedef struct layout {
    smos__defrag_config_t config; /* within its bounds */
    uint32_t buckets, chunks, out_bytes;
    size_t entries_at, buckets_at, next_at, chunks_at, out_at, join_at, bytes;
} layout_t;

/* Where a call's anomalies go. */
typedef struct report {
    uint16_t *ids;
    uint8_t *count;
} report_t;


static size_t align(size_t bytes) { return (bytes + 63) & ~(size_t)63; }


static layout_t lay_out(const smos__defrag_config_t *config)
{
    layout_t l = { .config = *config };
    if (l.config.max_datagrams < 1) l.config.max_datagrams = 1;
    if (l.config.max_datagrams > 1u << 24) l.config.max_datagrams = 1u << 24;
    if (l.config.max_fragments < 1) l.config.max_fragments = 1;
    if (l.config.max_fragments > 32768) l.config.max_fragments = 32768;
    for (l.buckets = 1; l.buckets < l.config.max_datagrams;) l.buckets *= 2;
    l.out_bytes = l.config.max_bytes / 4 / 64 * 64;
    if (l.out_bytes < WHOLE) l.out_bytes = WHOLE;
    if (l.out_bytes > OUT_MOST) l.out_bytes = OUT_MOST;
    l.chunks = l.config.max_bytes > l.out_bytes ? (l.config.max_bytes - l.out_bytes) / SMOS__CHUNK : 0;
    if (l.chunks < CHUNKS_LEAST) l.chunks = CHUNKS_LEAST;
    l.entries_at = align(sizeof(smos__defrag_t));
    l.buckets_at = l.entries_at + align(l.config.max_datagrams * sizeof(entry_t));
    l.next_at = l.buckets_at + align(l.buckets * sizeof(uint32_t));
    l.chunks_at = l.next_at + align(l.chunks * sizeof(uint32_t));
    l.out_at = l.chunks_at + (size_t)l.chunks * SMOS__CHUNK;
    l.join_at = l.out_at + l.out_bytes;
    l.bytes = l.join_at + align(sizeof(smos__join_t) + l.config.max_fragments * sizeof(((smos__join_t *)0)->record[0]));
    return l;
}


size_t smos__defrag_size(const smos__defrag_config_t *config) { return lay_out(config).bytes; }


smos__defrag_t *smos__defrag_init(void *memory, const smos__defrag_config_t *config)
{
    layout_t l = lay_out(config);
    uint8_t *base = memory;
    smos__defrag_t *d = memory;
    *d = (smos__defrag_t){ .config = l.config, .mask = l.buckets - 1, .free = NO_ENTRY, .oldest = NO_ENTRY, .newest = NO_ENTRY, .out_bytes = l.out_bytes };
    d->entries = (entry_t *)(void *)(base + l.entries_at);
    d->buckets = (uint32_t *)(void *)(base + l.buckets_at);
    d->chunks = (smos__chunks_t){ .data = base + l.chunks_at, .next = (uint32_t *)(void *)(base + l.next_at), .count = l.chunks, .free = SMOS__NO_CHUNK };
    d->out = base + l.out_at;
    d->join = (smos__join_t *)(void *)(base + l.join_at);
    memset(d->buckets, 0xff, l.buckets * sizeof d->buckets[0]);
    return d;
}


void smos__defrag_release(smos__defrag_t *d) { d->out_used = 0; }


uint32_t smos__defrag_largest(const smos__defrag_t *d) { return d->largest; }
uint32_t smos__defrag_id(const smos__defrag_t *d) { return d->id; }


const smos__defrag_stats_t *smos__defrag_stats(const smos__defrag_t *d) { return &d->stats; }


static uint32_t hash_key(const uint64_t k[2], const datagram_key_t *key)
{
    uint64_t words[sizeof *key / 8];
    _Static_assert(sizeof *key % 8 == 0, "the key is whole words, without padding");
    memcpy(words, key, sizeof *key);
    uint64_t h = smos__siphash(k, words, sizeof words / sizeof words[0]);
    return (uint32_t)(h ^ h >> 32);
}


static void add_anomaly(report_t *r, smos__anomaly_t anomaly)
{
    for (uint8_t i = 0; i < *r->count; i++)
        if (r->ids[i] == anomaly) return;
    if (*r->count < SMOS__MAX_ANOMALIES) r->ids[(*r->count)++] = (uint16_t)anomaly;
}


static void clear_datagram(smos__defrag_t *d, entry_t *e)
{
    if (!e->dead) d->stats.waiting--;
    smos__datagram_clear(&e->datagram, &d->chunks);
    d->stats.bytes = (uint64_t)d->chunks.used * SMOS__CHUNK;
}


static void drop_entry(smos__defrag_t *d, uint32_t i)
{
    entry_t *e = &d->entries[i];
    clear_datagram(d, e);
    uint32_t *link = &d->buckets[e->hash & d->mask];
    while (*link != i) link = &d->entries[*link].chain;
    *link = e->chain;
    *(e->older == NO_ENTRY ? &d->oldest : &d->entries[e->older].newer) = e->newer;
    *(e->newer == NO_ENTRY ? &d->newest : &d->entries[e->newer].older) = e->older;
    e->chain = d->free;
    d->free = i;
}


/* No more of this datagram: what still comes of it counts as bad until its time is over. */
static void give_up(smos__defrag_t *d, entry_t *e)
{
    clear_datagram(d, e);
    e->dead = true;
    d->stats.bad++;
}


static bool is_over(const smos__defrag_t *d, const entry_t *e, int64_t now_ns)
{
    return now_ns > e->created_ns && (uint64_t)now_ns - (uint64_t)e->created_ns > (uint64_t)d->config.timeout_ns;
}


/* Drops an entry for the room it takes. */
static void evict(smos__defrag_t *d, uint32_t i, int64_t now_ns, report_t *report)
{
    const entry_t *e = &d->entries[i];
    if (is_over(d, e, now_ns)) {
        d->stats.timed_out += !e->dead;
    } else if (!e->dead) {
        d->stats.evicted++;
        add_anomaly(report, SMOS__ANOMALY_FRAG_EVICTED);
    }
    drop_entry(d, i);
}


uint32_t smos__defrag_expire(smos__defrag_t *d, int64_t now_ns, uint32_t limit)
{
    uint32_t n = 0;
    for (; n < limit && d->oldest != NO_ENTRY && is_over(d, &d->entries[d->oldest], now_ns); n++) {
        d->stats.timed_out += !d->entries[d->oldest].dead;
        drop_entry(d, d->oldest);
    }
    return n;
}


static uint32_t find_entry(const smos__defrag_t *d, const datagram_key_t *key, uint32_t hash)
{
    uint32_t i = d->buckets[hash & d->mask];
    while (i != NO_ENTRY && (d->entries[i].hash != hash || memcmp(&d->entries[i].key, key, sizeof *key) != 0)) i = d->entries[i].chain;
    return i;
}


static uint8_t policy_of(const smos__defrag_t *d, const uint8_t destination[16], uint8_t version)
{
    return smos__prefix_find(d->config.prefixes, d->config.prefix_count, destination, version, d->config.policy);
}


static uint32_t new_entry(smos__defrag_t *d, const datagram_key_t *key, uint32_t hash, const smos__fragment_t *f, int64_t now_ns, report_t *report)
{
    if (d->free == NO_ENTRY && d->fresh == d->config.max_datagrams) evict(d, d->oldest, now_ns, report);
    uint32_t i = d->free;
    if (i != NO_ENTRY)
        d->free = d->entries[i].chain;
    else
        i = d->fresh++;
    entry_t *e = &d->entries[i];
    uint32_t *bucket = &d->buckets[hash & d->mask];
    *e = (entry_t){ .key = *key, .created_ns = now_ns, .hash = hash, .chain = *bucket, .older = d->newest, .newer = NO_ENTRY };
    smos__datagram_init(&e->datagram, f);
    e->datagram.policy = policy_of(d, key->dst, key->version);
    *bucket = i;
    *(d->newest == NO_ENTRY ? &d->oldest : &d->entries[d->newest].newer) = i;
    d->newest = i;
    d->stats.waiting++;
    return i;
}


/* The datagram's entry, made if there is none. */
static uint32_t entry_of(smos__defrag_t *d, const smos__fragment_t *f, const smos__layer_t *meta, int64_t now_ns, report_t *report)
{
    datagram_key_t key = { .id = f->id, .tunnel = meta->tuple.tunnel, .vlan = meta->tuple.vlan, .version = f->version,
                   .protocol = f->version == 4 ? f->protocol : 0 };
    memcpy(key.src, meta->tuple.src, sizeof key.src);
    memcpy(key.dst, meta->tuple.dst, sizeof key.dst);
    uint32_t hash = hash_key(d->config.key, &key), i = find_entry(d, &key, hash);
    if (i != NO_ENTRY && is_over(d, &d->entries[i], now_ns)) {
        if (!d->entries[i].dead) {
            d->stats.timed_out++;
            add_anomaly(report, SMOS__ANOMALY_FRAG_TIMEOUT);
        }
        drop_entry(d, i);
        i = NO_ENTRY;
    }
    return i != NO_ENTRY ? i : new_entry(d, &key, hash, f, now_ns, report);
}


static uint8_t *take_out(smos__defrag_t *d, uint32_t bytes)
{
    uint32_t room = (SMOS__DEFRAG_ROOM + bytes + 7) & ~7u;
    if (d->out_bytes - d->out_used < room) return NULL;
    uint8_t *at = d->out + d->out_used + SMOS__DEFRAG_ROOM;
    d->out_used += room;
    return at;
}


/* What is wrong with the fragment by itself; false if it counts for nothing. */
static bool acceptable(const smos__defrag_t *d, smos__fragment_t *f, const smos_tuple_t *tuple, report_t *report)
{
    if (f->version == 4 && f->df) add_anomaly(report, SMOS__ANOMALY_FRAG_WITH_DF);
    if (!f->length) {
        add_anomaly(report, SMOS__ANOMALY_FRAG_ZERO_LENGTH);
        return false;
    }
    if (f->more && f->length < 64) add_anomaly(report, SMOS__ANOMALY_FRAG_TINY);
    if (!smos__datagram_fits(f->version, f->header_length, f->offset + f->length)) {
        add_anomaly(report, SMOS__ANOMALY_FRAG_OVERSIZE);
        return false;
    }
    if (f->more && f->length % 8) {
        add_anomaly(report, SMOS__ANOMALY_FRAG_UNALIGNED);
        if (f->version == 6 || policy_of(d, tuple->dst, 4) != SMOS__DEFRAG_LINUX || f->length < 8) return false;
        bool whole = f->captured == f->length;
        f->length -= f->length % 8; /* Linux takes the whole units */
        f->captured = whole || f->captured > f->length ? f->length : f->captured;
    }
    return true;
}


/* A fragment header around a whole packet (RFC 6946): it meets no other fragment. */
static const uint8_t *whole_packet(smos__defrag_t *d, const smos__fragment_t *f, uint32_t *length, report_t *report)
{
    bool cut = f->captured < f->length, fits = smos__datagram_fits(f->version, f->header_length, f->length);
    if (cut || !fits) {
        add_anomaly(report, cut ? SMOS__ANOMALY_FRAG_TRUNCATED : SMOS__ANOMALY_FRAG_OVERSIZE);
        d->stats.bad++;
        return NULL;
    }
    uint8_t *out = take_out(d, f->header_length + f->length);
    if (!out) {
        d->stats.evicted++;
        return NULL;
    }
    memcpy(out, f->header, f->header_length);
    memcpy(out + f->header_length, f->data, f->length);
    smos__datagram_header(out, f->header_length, f->length, f->protocol, f->next_at);
    d->stats.completed++;
    *length = f->header_length + f->length;
    return out;
}


/* The fragment against those before it: false if it brings nothing new, or the datagram was given up over it. */
static bool fits_in(smos__defrag_t *d, entry_t *e, const smos__fragment_t *f, report_t *report)
{
    smos__datagram_t *g = &e->datagram;
    uint32_t end = f->offset + f->length;
    if (f->more ? end > g->end : end < g->highest || (g->end != UINT32_MAX && g->end != end)) {
        add_anomaly(report, SMOS__ANOMALY_FRAG_INCONSISTENT_END);
        d->stats.bad++;
        return false;
    }
    if (g->protocol != f->protocol) add_anomaly(report, SMOS__ANOMALY_FRAG_PROTOCOL_INCONSISTENT);
    smos__overlaps_t o = smos__datagram_overlaps(g, &d->chunks, f);
    if (o.any && !o.copy) add_anomaly(report, SMOS__ANOMALY_FRAG_OVERLAP);
    if (o.different) add_anomaly(report, SMOS__ANOMALY_FRAG_OVERLAP_DIFFERENT);
    if (o.inside && !o.copy) add_anomaly(report, SMOS__ANOMALY_FRAG_TEARDROP);
    /* A copy changes nothing, unless another fragment has overlapped what it is a copy of. */
    bool copy = o.copy && !g->overlapped;
    bool too_many = !copy && (g->records == d->config.max_fragments || g->log_bytes + f->length + f->header_length > SMOS__LOG_MAX);
    if (too_many || g->work > WORK_MAX) {
        add_anomaly(report, SMOS__ANOMALY_FRAG_TOO_MANY);
        give_up(d, e);
        return false;
    }
    if (copy && !f->more) g->end = end;
    g->overlapped |= o.any && !copy;
    return !copy;
}


/* Makes room for the fragment at the cost of the oldest of the others. One datagram alone always has room: CHUNKS_LEAST. */
static void make_room(smos__defrag_t *d, uint32_t entry, const smos__fragment_t *f, int64_t now_ns, report_t *report)
{
    const entry_t *e = &d->entries[entry];
    uint32_t needs = smos__datagram_needs(&e->datagram, f);
    while (d->chunks.count - d->chunks.used < needs) evict(d, d->oldest == entry ? e->newer : d->oldest, now_ns, report);
}


static const uint8_t *complete(smos__defrag_t *d, uint32_t entry, uint32_t *length, report_t *report)
{
    entry_t *e = &d->entries[entry];
    const smos__datagram_t *g = &e->datagram;
    if (!smos__datagram_fits(g->version, g->header_length, g->end)) {
        add_anomaly(report, SMOS__ANOMALY_FRAG_OVERSIZE);
        give_up(d, e);
        return NULL;
    }
    uint8_t *out = take_out(d, g->header_length + g->end);
    if (out) {
        /* RFC 5722 would drop an IPv6 datagram with overlaps; the anomaly tells, and the first bytes stand. */
        smos__datagram_join(g, &d->chunks, d->join, g->version == 6 ? SMOS__DEFRAG_FIRST : g->policy, out);
        *length = g->header_length + g->end;
        d->largest = g->largest;
        d->id = e->key.id;
        d->stats.completed++;
    } else {
        d->stats.evicted++;
    }
    drop_entry(d, entry);
    return out;
}


const uint8_t *smos__defrag_add(smos__defrag_t *d, const smos__frame_t *frame, const uint8_t *ip, uint32_t captured, uint32_t ip_len,
                                const smos__layer_t *meta, uint32_t *length, uint16_t *anomalies, uint8_t *anomaly_count)
{
    report_t report = { anomalies, anomaly_count };
    smos__fragment_t f;
    d->stats.fragments++;
    smos__fragment_result_t parsed = smos__fragment_parse(ip, captured, ip_len, &f);
    if (parsed != SMOS__FRAGMENT_OK) {
        if (parsed == SMOS__FRAGMENT_CUT) add_anomaly(&report, SMOS__ANOMALY_FRAG_TRUNCATED);
        d->stats.bad++;
        return NULL;
    }
    if (!f.offset && !f.more) return whole_packet(d, &f, length, &report);
    if (!acceptable(d, &f, &meta->tuple, &report)) {
        d->stats.bad++;
        return NULL;
    }
    uint32_t entry = entry_of(d, &f, meta, frame->time_ns, &report);
    entry_t *e = &d->entries[entry];
    if (e->dead) {
        d->stats.bad++;
        return NULL;
    }
    if (f.captured < f.length) {
        add_anomaly(&report, SMOS__ANOMALY_FRAG_TRUNCATED);
        give_up(d, e);
        return NULL;
    }
    if (fits_in(d, e, &f, &report)) {
        make_room(d, entry, &f, frame->time_ns, &report);
        smos__datagram_add(&e->datagram, &d->chunks, &f);
        d->stats.bytes = (uint64_t)d->chunks.used * SMOS__CHUNK;
    }
    return !e->dead && smos__datagram_complete(&e->datagram) ? complete(d, entry, length, &report) : NULL;
}
