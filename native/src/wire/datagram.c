/* See datagram.h.
 *
 * The overlap rules, for a unit that an older fragment O and a new one N both carry, with the bounds that both came with:
 *
 *   first      O, always
 *   last       N, always
 *   bsd        N if it begins before O
 *   bsd-right  N if it begins with O or after it
 *   linux      N if it begins before O or with it
 *   windows    N if it begins before O and ends after it
 *   solaris    N if it begins before O and does not end before it
 *
 * Sources: U. Shankar and V. Paxson, "Active Mapping" (2003); J. Novak, "Target-Based Fragmentation Reassembly" (2005); what
 * Suricata does. All fragments but the last are whole units, and none reaches beyond the last, so a unit has one owner.
 */
#include "wire/datagram.h"

#include <string.h>

#define HEADER_MARK 0xffffu /* not an offset: those end at 8191 units */
#define NO_OWNER 0xffffu

typedef struct mark {
    uint16_t start;  /* units, or HEADER_MARK */
    uint16_t length; /* bytes */
} mark_t;

/* A place in the log. */
typedef struct cursor {
    const smos__chunks_t *chunks;
    uint32_t chunk, at;
    uint32_t left; /* bytes of the log from here on */
} cursor_t;


bool smos__defrag_new_wins(int policy, uint32_t old_start, uint32_t old_end, uint32_t start, uint32_t end)
{
    switch (policy) {
    case SMOS__DEFRAG_LAST:
        return true;
    case SMOS__DEFRAG_BSD:
        return start < old_start;
    case SMOS__DEFRAG_BSD_RIGHT:
        return start >= old_start;
    case SMOS__DEFRAG_LINUX:
        return start <= old_start;
    case SMOS__DEFRAG_WINDOWS:
        return start < old_start && end > old_end;
    case SMOS__DEFRAG_SOLARIS:
        return start < old_start && end >= old_end;
    default: /* first */
        return false;
    }
}


static uint32_t take_chunk(smos__chunks_t *c)
{
    uint32_t i = c->free;
    if (i != SMOS__NO_CHUNK)
        c->free = c->next[i];
    else
        i = c->fresh++;
    c->next[i] = SMOS__NO_CHUNK;
    c->used++;
    return i;
}


static void give_chunk(smos__chunks_t *c, uint32_t i)
{
    c->next[i] = c->free;
    c->free = i;
    c->used--;
}


static uint8_t *chunk_data(const smos__chunks_t *c, uint32_t i) { return c->data + (size_t)i * SMOS__CHUNK; }


void smos__datagram_init(smos__datagram_t *g, const smos__fragment_t *f)
{
    *g = (smos__datagram_t){ .bits = SMOS__NO_CHUNK, .first = SMOS__NO_CHUNK, .last = SMOS__NO_CHUNK, .end = UINT32_MAX,
                             .version = f->version, .protocol = f->protocol };
}


void smos__datagram_clear(smos__datagram_t *g, smos__chunks_t *c)
{
    if (g->bits != SMOS__NO_CHUNK) give_chunk(c, g->bits);
    for (uint32_t i = g->first; i != SMOS__NO_CHUNK;) {
        uint32_t next = c->next[i];
        give_chunk(c, i);
        i = next;
    }
    g->bits = g->first = g->last = SMOS__NO_CHUNK;
    g->log_bytes = 0;
}


static bool brings_header(const smos__datagram_t *g, const smos__fragment_t *f) { return f->offset == 0 && !g->has_header; }


static uint32_t log_growth(const smos__datagram_t *g, const smos__fragment_t *f)
{
    return (uint32_t)sizeof(mark_t) + f->length + (brings_header(g, f) ? (uint32_t)sizeof(mark_t) + f->header_length : 0);
}


uint32_t smos__datagram_needs(const smos__datagram_t *g, const smos__fragment_t *f)
{
    uint32_t have = (g->log_bytes + SMOS__CHUNK - 1) / SMOS__CHUNK;
    uint32_t want = (g->log_bytes + log_growth(g, f) + SMOS__CHUNK - 1) / SMOS__CHUNK;
    return want - have + (g->bits == SMOS__NO_CHUNK);
}


static void write_log(smos__datagram_t *g, smos__chunks_t *c, const void *bytes, uint32_t length)
{
    const uint8_t *from = bytes;
    while (length) {
        uint32_t at = g->log_bytes % SMOS__CHUNK;
        if (at == 0) {
            uint32_t i = take_chunk(c);
            *(g->last == SMOS__NO_CHUNK ? &g->first : &c->next[g->last]) = i;
            g->last = i;
        }
        uint32_t n = SMOS__CHUNK - at < length ? SMOS__CHUNK - at : length;
        memcpy(chunk_data(c, g->last) + at, from, n);
        g->log_bytes += n;
        from += n;
        length -= n;
    }
}


static cursor_t log_start(const smos__datagram_t *g, const smos__chunks_t *c)
{
    return (cursor_t){ .chunks = c, .chunk = g->first, .left = g->log_bytes };
}


/* The next bytes that lie together, at most `length`; steps over them. */
static uint32_t next_bytes(cursor_t *at, uint32_t length, const uint8_t **bytes)
{
    if (at->at == SMOS__CHUNK) {
        at->chunk = at->chunks->next[at->chunk];
        at->at = 0;
    }
    uint32_t n = SMOS__CHUNK - at->at < length ? SMOS__CHUNK - at->at : length;
    *bytes = chunk_data(at->chunks, at->chunk) + at->at;
    at->at += n;
    at->left -= n;
    return n;
}


static void read_log(cursor_t *at, void *out, uint32_t length)
{
    for (uint8_t *to = out; length;) {
        const uint8_t *bytes;
        uint32_t n = next_bytes(at, length, &bytes);
        if (to) {
            memcpy(to, bytes, n);
            to += n;
        }
        length -= n;
    }
}


static bool log_differs(cursor_t *at, const uint8_t *data, uint32_t length)
{
    bool differs = false;
    while (length) {
        const uint8_t *bytes;
        uint32_t n = next_bytes(at, length, &bytes);
        differs |= memcmp(bytes, data, n) != 0;
        data += n;
        length -= n;
    }
    return differs;
}


/* The words of the bitmap, and the bits of units [from, to) in one of them. */
static uint64_t unit_mask(uint32_t word, uint32_t from, uint32_t to)
{
    uint64_t mask = UINT64_MAX;
    if (word == from / 64) mask &= UINT64_MAX << (from % 64);
    if (word == (to - 1) / 64) mask &= UINT64_MAX >> (63 - (to - 1) % 64);
    return mask;
}


static bool any_covered(const smos__datagram_t *g, const smos__chunks_t *c, uint32_t from, uint32_t to)
{
    if (g->bits == SMOS__NO_CHUNK) return false;
    const uint64_t *bits = (const uint64_t *)(const void *)chunk_data(c, g->bits);
    for (uint32_t w = from / 64; w <= (to - 1) / 64; w++)
        if (bits[w] & unit_mask(w, from, to)) return true;
    return false;
}


static void cover(smos__datagram_t *g, smos__chunks_t *c, uint32_t from, uint32_t to)
{
    uint64_t *bits = (uint64_t *)(void *)chunk_data(c, g->bits);
    for (uint32_t w = from / 64; w <= (to - 1) / 64; w++) {
        uint64_t mask = unit_mask(w, from, to);
        g->covered += (uint32_t)__builtin_popcountll(mask & ~bits[w]);
        bits[w] |= mask;
    }
}


smos__overlaps_t smos__datagram_overlaps(smos__datagram_t *g, const smos__chunks_t *c, const smos__fragment_t *f)
{
    smos__overlaps_t o = { .any = false };
    uint32_t end = f->offset + f->length;
    if (!any_covered(g, c, f->offset / 8, (end + 7) / 8)) return o;
    for (cursor_t at = log_start(g, c); at.left;) {
        mark_t m;
        read_log(&at, &m, sizeof m);
        uint32_t start = m.start * 8u, old_end = start + m.length;
        uint32_t low = start > f->offset ? start : f->offset, high = old_end < end ? old_end : end;
        g->work++;
        if (m.start == HEADER_MARK || low >= high) {
            read_log(&at, NULL, m.length);
            continue;
        }
        g->work += (high - low) / 64;
        read_log(&at, NULL, low - start);
        bool differs = log_differs(&at, f->data + (low - f->offset), high - low);
        read_log(&at, NULL, old_end - high);
        o.any = true;
        o.different |= differs;
        o.inside |= start < f->offset && end < old_end;
        o.copy |= !differs && start == f->offset && end == old_end;
    }
    return o;
}


void smos__datagram_add(smos__datagram_t *g, smos__chunks_t *c, const smos__fragment_t *f)
{
    if (g->bits == SMOS__NO_CHUNK) {
        g->bits = take_chunk(c);
        memset(chunk_data(c, g->bits), 0, SMOS__CHUNK);
    }
    if (brings_header(g, f)) {
        write_log(g, c, &(mark_t){ HEADER_MARK, (uint16_t)f->header_length }, sizeof(mark_t));
        write_log(g, c, f->header, f->header_length);
        g->has_header = true;
        g->header_length = f->header_length;
        g->next_at = f->next_at;
        g->protocol = f->protocol;
    }
    write_log(g, c, &(mark_t){ (uint16_t)(f->offset / 8), (uint16_t)f->length }, sizeof(mark_t));
    write_log(g, c, f->data, f->length);
    g->records++;
    uint32_t end = f->offset + f->length;
    if (end > g->highest) g->highest = end;
    if (f->more && f->length > g->largest) g->largest = f->length;
    if (!f->more) g->end = end;
    cover(g, c, f->offset / 8, (end + 7) / 8);
}


/* A record's units, where the policy gives them to it. */
static void join_record(smos__join_t *j, uint32_t record, cursor_t *at, int policy, uint8_t *out)
{
    uint32_t start = j->record[record].start, end = j->record[record].end;
    for (uint32_t low = start; low < end; low += 8) {
        uint32_t n = end - low < 8 ? end - low : 8;
        uint16_t *owner = &j->owner[low / 8];
        bool wins = *owner == NO_OWNER || smos__defrag_new_wins(policy, j->record[*owner].start, j->record[*owner].end, start, end);
        if (wins) *owner = (uint16_t)record;
        read_log(at, wins ? out + low : NULL, n);
    }
}


void smos__datagram_join(const smos__datagram_t *g, const smos__chunks_t *c, smos__join_t *j, int policy, uint8_t *out)
{
    uint32_t record = 0;
    uint8_t *data = out + g->header_length;
    if (g->overlapped) memset(j->owner, 0xff, (g->end + 7) / 8 * sizeof j->owner[0]);
    for (cursor_t at = log_start(g, c); at.left;) {
        mark_t m;
        read_log(&at, &m, sizeof m);
        if (m.start == HEADER_MARK) {
            read_log(&at, out, m.length);
        } else if (!g->overlapped) {
            read_log(&at, data + m.start * 8u, m.length);
        } else {
            j->record[record].start = m.start * 8u;
            j->record[record].end = m.start * 8u + m.length;
            join_record(j, record++, &at, policy, data);
        }
    }
    smos__datagram_header(out, g->header_length, g->end, g->protocol, g->next_at);
}
