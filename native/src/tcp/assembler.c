/* See assembler.h. A list of blocks in order of offset, walked from the nearer end; overlap.c has the rules, block.c the bytes. */
#include "tcp/assembler.h"

#include <string.h>

#include "tcp/block.h"
#include "tcp/overlap.h"

/* One segment on its way in. */
typedef struct insert {
    smos__assembler_t *a;
    smos__pool_t *pool;
    const uint8_t *data;
    uint64_t start, end;
    int policy;
    bool bounds;
    uint32_t max_bytes, max_segments;
    smos__insert_result_t *result;
} insert_t;


void smos__assembler_init(smos__assembler_t *a)
{
    *a = (smos__assembler_t){ .head = SMOS__NO_BLOCK, .tail = SMOS__NO_BLOCK };
}


void smos__assembler_clear(smos__assembler_t *a, smos__pool_t *p)
{
    for (uint32_t i = a->head; i != SMOS__NO_BLOCK;) {
        uint32_t next = smos__block_at(p, i)->next;
        smos__pool_give(p, i);
        i = next;
    }
    smos__assembler_init(a);
}


/* The last block that begins at or before offset. */
static uint32_t at_or_before(const smos__assembler_t *a, const smos__pool_t *p, uint64_t offset)
{
    uint32_t i = a->tail;
    if (i == SMOS__NO_BLOCK) return i;
    uint64_t first = smos__block_at(p, a->head)->offset, last = smos__block_at(p, i)->offset;
    if (offset >= last) return i;
    if (offset < first) return SMOS__NO_BLOCK;
    if (offset - first < last - offset) {
        for (i = a->head;;) {
            uint32_t next = smos__block_at(p, i)->next;
            if (smos__block_at(p, next)->offset > offset) return i;
            i = next;
        }
    }
    while (smos__block_at(p, i)->offset > offset) i = smos__block_at(p, i)->prev;
    return i;
}


static void link_after(smos__assembler_t *a, smos__pool_t *p, uint32_t block, uint32_t prev)
{
    smos__block_t *b = smos__block_at(p, block);
    uint32_t *from = prev == SMOS__NO_BLOCK ? &a->head : &smos__block_at(p, prev)->next;
    b->prev = prev;
    b->next = *from;
    *from = block;
    if (b->next == SMOS__NO_BLOCK)
        a->tail = block;
    else
        smos__block_at(p, b->next)->prev = block;
    a->segments++;
}


static void unlink_head(smos__assembler_t *a, smos__pool_t *p)
{
    uint32_t i = a->head;
    const smos__block_t *b = smos__block_at(p, i);
    a->head = b->next;
    if (b->next == SMOS__NO_BLOCK)
        a->tail = SMOS__NO_BLOCK;
    else
        smos__block_at(p, b->next)->prev = SMOS__NO_BLOCK;
    a->bytes -= b->length;
    a->segments--;
    smos__pool_give(p, i);
}


/* Buffers [at, limit), which no block holds, after *prev; moves *prev to the last block written. */
static bool store(insert_t *in, uint32_t *prev, uint64_t at, uint64_t limit)
{
    uint32_t allowed = in->max_bytes > in->a->bytes ? in->max_bytes - in->a->bytes : 0;
    bool all = limit - at <= allowed;
    if (!all) limit = at + allowed;
    bool fresh = *prev == SMOS__NO_BLOCK || smos__block_end(smos__block_at(in->pool, *prev)) != at;
    while (at < limit) {
        if (fresh) {
            if (in->a->segments >= in->max_segments) return false;
            uint32_t i = smos__block_take(in->pool, (uint32_t)(limit - at));
            if (i == SMOS__NO_BLOCK) return false;
            smos__block_at(in->pool, i)->offset = at;
            link_after(in->a, in->pool, i, *prev);
            *prev = i;
        }
        uint32_t n = smos__block_append(smos__block_at(in->pool, *prev), in->data + (at - in->start), at, limit, in->start, in->end, in->bounds);
        at += n;
        in->a->bytes += n;
        in->result->stored += n;
        fresh = true;
    }
    return all;
}


static void note_conflicts(insert_t *in, const uint8_t *old, uint64_t at, uint32_t length, bool new_wins)
{
    smos__insert_result_t *r = in->result;
    const uint8_t *data = in->data + (at - in->start);
    uint32_t differ = 0;
    if (memcmp(old, data, length) != 0) {
        for (uint32_t i = 0; i < length; i++) {
            if (old[i] == data[i]) continue;
            if (!r->conflicting && !differ) r->conflict_offset = at + i;
            differ++;
        }
        if (new_wins)
            r->took_new = 1;
        else
            r->kept_old = 1;
    }
    r->conflicting += differ;
    r->duplicate += length - differ;
}


/* [at, limit) lies in *block: its bytes or the segment's count. Moves *block on if it had to be cut in two. */
static bool merge(insert_t *in, uint32_t *block, uint64_t at, uint64_t limit)
{
    smos__block_t *b = smos__block_at(in->pool, *block);
    smos__insert_result_t before = *in->result;
    for (uint32_t k = 0; k < b->runs; k++) {
        uint64_t begin = b->offset + smos__run_begin(b, k), end = b->offset + smos__block_run(b, k)->end;
        if (begin < at) begin = at;
        if (end > limit) end = limit;
        if (begin >= end) continue;
        bool wins = smos__overlap_new_wins(in->policy, smos__run_owner_start(b, k), smos__run_owner_end(b, k), in->start, in->end);
        note_conflicts(in, b->data + (begin - b->offset), begin, (uint32_t)(end - begin), wins);
    }
    uint32_t spare = SMOS__NO_BLOCK;
    const uint8_t *data = in->data + (at - in->start);
    if (smos__block_overlay(in->pool, b, data, at, limit, in->start, in->end, in->policy, &spare)) return true;
    if (in->a->segments < in->max_segments) spare = smos__block_take(in->pool, b->room);
    if (spare != SMOS__NO_BLOCK && smos__block_at(in->pool, spare)->room < b->room) {
        smos__pool_give(in->pool, spare);
        spare = SMOS__NO_BLOCK;
    }
    if (spare == SMOS__NO_BLOCK) {
        *in->result = before;
        return false;
    }
    uint32_t second = spare;
    smos__block_overlay(in->pool, b, data, at, limit, in->start, in->end, in->policy, &spare);
    link_after(in->a, in->pool, second, *block);
    *block = second;
    return true;
}


static bool insert_segment(insert_t *in)
{
    uint64_t at = in->start;
    uint32_t prev = at_or_before(in->a, in->pool, at);
    if (prev != SMOS__NO_BLOCK && smos__block_end(smos__block_at(in->pool, prev)) > at) {
        uint64_t end = smos__block_end(smos__block_at(in->pool, prev));
        if (end > in->end) end = in->end;
        if (!merge(in, &prev, at, end)) return false;
        at = end;
    }
    while (at < in->end) {
        uint32_t next = prev == SMOS__NO_BLOCK ? in->a->head : smos__block_at(in->pool, prev)->next;
        uint64_t limit = in->end;
        if (next != SMOS__NO_BLOCK && smos__block_at(in->pool, next)->offset < limit) limit = smos__block_at(in->pool, next)->offset;
        if (at < limit) {
            if (!store(in, &prev, at, limit)) return false;
            at = limit;
            continue;
        }
        uint64_t end = smos__block_end(smos__block_at(in->pool, next));
        if (end > in->end) end = in->end;
        prev = next;
        if (!merge(in, &prev, at, end)) return false;
        at = end;
    }
    return true;
}


void smos__assembler_insert(smos__assembler_t *a, smos__pool_t *p, uint64_t offset, const uint8_t *data, uint32_t length, int policy,
                            uint32_t max_bytes, uint32_t max_segments, smos__insert_result_t *result)
{
    *result = (smos__insert_result_t){ .stored = 0 };
    insert_t in = { .a = a, .pool = p, .policy = policy, .bounds = smos__overlap_needs_bounds(policy), .max_bytes = max_bytes,
                    .max_segments = max_segments > UINT16_MAX ? UINT16_MAX : max_segments, .result = result };
    while (length && !result->full) {
        uint32_t n = length < SMOS__SEGMENT_MAX ? length : SMOS__SEGMENT_MAX;
        in.data = data;
        in.start = offset;
        in.end = offset + n;
        result->full = !insert_segment(&in);
        data += n;
        offset += n;
        length -= n;
    }
}


uint32_t smos__assembler_compare(const smos__assembler_t *a, const smos__pool_t *p, uint64_t offset, const uint8_t *data, uint32_t length, uint64_t *first)
{
    uint64_t end = offset + length;
    uint32_t differ = 0, i = at_or_before(a, p, offset);
    if (i == SMOS__NO_BLOCK) i = a->head;
    for (; i != SMOS__NO_BLOCK; i = smos__block_at(p, i)->next) {
        const smos__block_t *b = smos__block_at(p, i);
        if (b->offset >= end) break;
        uint64_t low = b->offset > offset ? b->offset : offset, high = smos__block_end(b) < end ? smos__block_end(b) : end;
        if (low >= high || memcmp(b->data + (low - b->offset), data + (low - offset), high - low) == 0) continue;
        for (uint64_t at = low; at < high; at++) {
            if (b->data[at - b->offset] == data[at - offset]) continue;
            if (!differ++) *first = at;
        }
    }
    return differ;
}


uint32_t smos__assembler_winner(const smos__assembler_t *a, const smos__pool_t *p, uint64_t offset, uint32_t length, uint64_t from, int policy, bool *packet)
{
    uint64_t end = offset + length, at = from;
    uint32_t i = at_or_before(a, p, from);
    if (i == SMOS__NO_BLOCK || smos__block_end(smos__block_at(p, i)) <= from) i = i == SMOS__NO_BLOCK ? a->head : smos__block_at(p, i)->next;
    *packet = true;
    for (; i != SMOS__NO_BLOCK && at < end; i = smos__block_at(p, i)->next) {
        const smos__block_t *b = smos__block_at(p, i);
        if (b->offset > at) { /* a hole: only the packet has these */
            if (at > from && !*packet) return (uint32_t)(at - from);
            *packet = true;
            at = b->offset < end ? b->offset : end;
        }
        for (uint32_t k = 0; k < b->runs && at < end; k++) {
            uint64_t run_end = b->offset + smos__block_run(b, k)->end;
            if (run_end <= at) continue;
            bool wins = smos__overlap_new_wins(policy, smos__run_owner_start(b, k), smos__run_owner_end(b, k), offset, end);
            if (at > from && wins != *packet) return (uint32_t)(at - from);
            *packet = wins;
            at = run_end < end ? run_end : end;
        }
    }
    if (at < end) { /* beyond the last block */
        if (at > from && !*packet) return (uint32_t)(at - from);
        *packet = true;
    }
    return (uint32_t)(end - from);
}


uint32_t smos__assembler_new_wins(const smos__assembler_t *a, const smos__pool_t *p, uint64_t offset, uint32_t length, int policy)
{
    bool packet;
    uint32_t n = smos__assembler_winner(a, p, offset, length, offset, policy, &packet);
    return packet ? n : 0;
}


uint32_t smos__assembler_front(const smos__assembler_t *a, const smos__pool_t *p, uint64_t *offset, const uint8_t **data)
{
    if (a->head == SMOS__NO_BLOCK) return 0;
    const smos__block_t *b = smos__block_at(p, a->head);
    *offset = b->offset;
    *data = b->data;
    return b->length;
}


uint32_t smos__assembler_read(const smos__assembler_t *a, const smos__pool_t *p, uint64_t offset, uint8_t *buffer, uint32_t length)
{
    uint32_t done = 0, i = at_or_before(a, p, offset);
    for (; i != SMOS__NO_BLOCK && done < length; i = smos__block_at(p, i)->next) {
        const smos__block_t *b = smos__block_at(p, i);
        if (b->offset > offset || smos__block_end(b) <= offset) break;
        uint32_t n = (uint32_t)(smos__block_end(b) - offset);
        if (n > length - done) n = length - done;
        memcpy(buffer + done, b->data + (offset - b->offset), n);
        done += n;
        offset += n;
    }
    return done;
}


uint64_t smos__assembler_next(const smos__assembler_t *a, const smos__pool_t *p, uint64_t offset)
{
    uint32_t i = at_or_before(a, p, offset);
    if (i != SMOS__NO_BLOCK && smos__block_end(smos__block_at(p, i)) > offset) return offset;
    i = i == SMOS__NO_BLOCK ? a->head : smos__block_at(p, i)->next;
    return i == SMOS__NO_BLOCK ? UINT64_MAX : smos__block_at(p, i)->offset;
}


uint64_t smos__assembler_last(const smos__assembler_t *a, const smos__pool_t *p) { return a->tail == SMOS__NO_BLOCK ? 0 : smos__block_end(smos__block_at(p, a->tail)); }


void smos__assembler_trim(smos__assembler_t *a, smos__pool_t *p, uint64_t offset)
{
    while (a->head != SMOS__NO_BLOCK) {
        smos__block_t *b = smos__block_at(p, a->head);
        if (b->offset >= offset) return;
        if (smos__block_end(b) > offset) {
            a->bytes -= (uint32_t)(offset - b->offset);
            smos__block_trim(b, offset);
            return;
        }
        unlink_head(a, p);
    }
}


uint32_t smos__assembler_ranges(const smos__assembler_t *a, const smos__pool_t *p, uint64_t (*ranges)[2], uint32_t max)
{
    uint32_t n = 0;
    for (uint32_t i = a->head; i != SMOS__NO_BLOCK; i = smos__block_at(p, i)->next) {
        const smos__block_t *b = smos__block_at(p, i);
        if (n && ranges[n - 1][1] == b->offset) {
            ranges[n - 1][1] = smos__block_end(b);
            continue;
        }
        if (n == max) break;
        ranges[n][0] = b->offset;
        ranges[n++][1] = smos__block_end(b);
    }
    return n;
}
