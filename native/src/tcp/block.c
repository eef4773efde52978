/* See block.h. */
#include "tcp/block.h"

#include <string.h>

#include "tcp/overlap.h"

/* Runs aside from a block, while they change. */
typedef struct runs {
    uint32_t count;
    smos__run_t run[SMOS__RUNS_MAX + 3];
} runs_t;


uint32_t smos__block_take(smos__pool_t *p, uint32_t bytes)
{
    uint32_t i = smos__pool_take(p, bytes > SMOS__SMALL_FITS);
    if (i == SMOS__NO_BLOCK) i = smos__pool_take(p, false);
    if (i == SMOS__NO_BLOCK) return i;
    smos__block_t *b = smos__block_at(p, i);
    *b = (smos__block_t){ .next = SMOS__NO_BLOCK, .prev = SMOS__NO_BLOCK };
    b->room = (uint16_t)(smos__pool_block_bytes(p, i) - sizeof *b);
    return i;
}


static uint32_t weight(uint32_t bytes, uint32_t runs) { return bytes + runs * (uint32_t)sizeof(smos__run_t); }


uint32_t smos__block_append(smos__block_t *b, const uint8_t *data, uint64_t at, uint64_t limit, uint64_t segment_start, uint64_t segment_end, bool bounds)
{
    bool same = b->runs && (!bounds || (smos__run_owner_start(b, b->runs - 1u) == segment_start && smos__run_owner_end(b, b->runs - 1u) == segment_end));
    uint32_t used = weight(b->length, b->runs + !same);
    if (used >= b->room) return 0;
    uint32_t n = b->room - used;
    if (n > limit - at) n = (uint32_t)(limit - at);
    memcpy(b->data + b->length, data, n);
    b->runs = (uint16_t)(b->runs + !same);
    smos__run_t *r = smos__block_run(b, b->runs - 1u);
    if (!same) r->before = bounds ? (uint16_t)(at - segment_start) : 0;
    b->length = (uint16_t)(b->length + n);
    r->end = b->length;
    r->after = bounds ? (uint16_t)(segment_end - smos__block_end(b)) : 0;
    return n;
}


/* Ends a run at `end`, within the block; owner_* are relative to the block. Joins it with the run before if they have one owner. */
static void add_run(runs_t *list, uint32_t end, int64_t owner_start, int64_t owner_end)
{
    uint32_t begin = list->count ? list->run[list->count - 1].end : 0;
    if (end == begin) return;
    if (list->count) {
        smos__run_t *last = &list->run[list->count - 1];
        int64_t last_begin = list->count > 1 ? list->run[list->count - 2].end : 0;
        if (last_begin - last->before == owner_start && last->end + last->after == owner_end) {
            last->end = (uint16_t)end;
            last->after = (uint16_t)(owner_end - end);
            return;
        }
    }
    list->run[list->count++] = (smos__run_t){ (uint16_t)end, (uint16_t)(begin - owner_start), (uint16_t)(owner_end - end) };
}


static void put_runs(smos__block_t *b, const smos__run_t *run, uint32_t count)
{
    b->runs = (uint16_t)count;
    for (uint32_t k = 0; k < count; k++) *smos__block_run(b, k) = run[k];
}


/* Where to cut a block of those runs so that each half has room: a byte, and the run that holds it. */
static uint32_t cut_at(const runs_t *list, uint32_t length, uint32_t *run)
{
    uint32_t half = weight(length, list->count) / 2, k = 0;
    while (weight(list->run[k].end, k + 1) < half) k++;
    uint32_t begin = k ? list->run[k - 1].end : 0, cut = half > weight(0, k + 1) ? half - weight(0, k + 1) : 0;
    *run = k;
    return cut < begin ? begin : cut;
}


/* Moves the second part of the block, with its runs, to the empty block `second`. */
static void split(smos__block_t *b, runs_t *list, smos__block_t *second)
{
    uint32_t k, cut = cut_at(list, b->length, &k);
    uint32_t begin = k ? list->run[k - 1].end : 0;
    second->offset = b->offset + cut;
    second->length = (uint16_t)(b->length - cut);
    memcpy(second->data, b->data + cut, second->length);
    runs_t right = { .count = list->count - k };
    for (uint32_t i = 0; i < right.count; i++) {
        right.run[i] = list->run[k + i];
        right.run[i].end = (uint16_t)(right.run[i].end - cut);
    }
    right.run[0].before = (uint16_t)(right.run[0].before + (cut - begin));
    put_runs(second, right.run, right.count);
    if (cut > begin) {
        list->run[k].after = (uint16_t)(list->run[k].after + (list->run[k].end - cut));
        list->run[k].end = (uint16_t)cut;
        k++;
    }
    b->length = (uint16_t)cut;
    put_runs(b, list->run, k);
}


bool smos__block_overlay(smos__pool_t *p, smos__block_t *b, const uint8_t *data, uint64_t from, uint64_t to, uint64_t segment_start,
                         uint64_t segment_end, int policy, uint32_t *spare)
{
    uint32_t first = (uint32_t)(from - b->offset), end = (uint32_t)(to - b->offset);
    if (!smos__overlap_needs_bounds(policy)) {
        if (smos__overlap_new_wins(policy, 0, 0, 0, 0)) memcpy(b->data + first, data, end - first);
        return true;
    }
    runs_t list = { .count = 0 };
    int64_t new_start = (int64_t)(segment_start - b->offset), new_end = (int64_t)(segment_end - b->offset);
    bool any = false;
    for (uint32_t k = 0, begin = 0; k < b->runs; begin = smos__block_run(b, k)->end, k++) {
        const smos__run_t *r = smos__block_run(b, k);
        int64_t owner_start = (int64_t)begin - r->before, owner_end = (int64_t)r->end + r->after;
        uint32_t low = begin > first ? begin : first, high = r->end < end ? r->end : end;
        if (low < high && smos__overlap_new_wins(policy, b->offset + (uint64_t)owner_start, b->offset + (uint64_t)owner_end, segment_start, segment_end)) {
            any = true;
            add_run(&list, low, owner_start, owner_end);
            add_run(&list, high, new_start, new_end);
        }
        add_run(&list, r->end, owner_start, owner_end);
    }
    if (!any) return true;
    bool fits = weight(b->length, list.count) <= b->room;
    if (!fits && *spare == SMOS__NO_BLOCK) return false;
    for (uint32_t k = 0, begin = 0; k < b->runs; begin = smos__block_run(b, k)->end, k++) {
        const smos__run_t *r = smos__block_run(b, k);
        uint32_t low = begin > first ? begin : first, high = r->end < end ? r->end : end;
        if (low < high && smos__overlap_new_wins(policy, smos__run_owner_start(b, k), smos__run_owner_end(b, k), segment_start, segment_end))
            memcpy(b->data + low, data + (low - first), high - low);
    }
    if (fits) {
        put_runs(b, list.run, list.count);
    } else {
        split(b, &list, smos__block_at(p, *spare));
        *spare = SMOS__NO_BLOCK;
    }
    return true;
}


void smos__block_trim(smos__block_t *b, uint64_t offset)
{
    uint32_t cut = (uint32_t)(offset - b->offset), dropped = 0;
    while (smos__block_run(b, dropped)->end <= cut) dropped++;
    uint32_t begin = smos__run_begin(b, dropped);
    smos__block_run(b, dropped)->before = (uint16_t)(smos__block_run(b, dropped)->before + (cut - begin));
    for (uint32_t k = dropped; k < b->runs; k++) {
        smos__run_t r = *smos__block_run(b, k);
        r.end = (uint16_t)(r.end - cut);
        *smos__block_run(b, k - dropped) = r;
    }
    b->runs = (uint16_t)(b->runs - dropped);
    memmove(b->data, b->data + cut, b->length - cut);
    b->offset = offset;
    b->length = (uint16_t)(b->length - cut);
}
