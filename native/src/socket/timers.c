/* See timers.h. */
#include "socket/timers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX


void smos__timers_init(smos__timers_t *t)
{
    memset(t, 0, sizeof *t);
    t->next_ns = SMOS__NO_TIMER_NS;
    t->free = NONE;
}


void smos__timers_free(smos__timers_t *t)
{
    free(t->entry);
    free(t->heap);
    smos__timers_init(t);
}


static void place(smos__timers_t *t, uint32_t at, uint32_t e)
{
    t->heap[at] = e;
    t->entry[e].place = at;
}


static bool before(const smos__timers_t *t, uint32_t a, uint32_t b)
{
    const smos__timer_t *x = &t->entry[a], *y = &t->entry[b];
    return x->due_ns != y->due_ns ? x->due_ns < y->due_ns : x->order < y->order;
}


static void up(smos__timers_t *t, uint32_t at)
{
    uint32_t e = t->heap[at];
    for (; at && before(t, e, t->heap[(at - 1) / 2]); at = (at - 1) / 2) place(t, at, t->heap[(at - 1) / 2]);
    place(t, at, e);
}


static void down(smos__timers_t *t, uint32_t at)
{
    uint32_t e = t->heap[at];
    for (uint32_t child; (child = 2 * at + 1) < t->count; at = child) {
        if (child + 1 < t->count && before(t, t->heap[child + 1], t->heap[child])) child++;
        if (!before(t, t->heap[child], e)) break;
        place(t, at, t->heap[child]);
    }
    place(t, at, e);
}


static void note_next(smos__timers_t *t) { t->next_ns = t->count ? t->entry[t->heap[0]].due_ns : SMOS__NO_TIMER_NS; }


static void take_out(smos__timers_t *t, uint32_t e)
{
    uint32_t at = t->entry[e].place, last = t->heap[--t->count];
    t->entry[e].box = NULL;
    t->entry[e].turn++;
    t->entry[e].place = t->free;
    t->free = e;
    if (at < t->count) {
        place(t, at, last);
        down(t, at);
        up(t, t->entry[last].place);
    }
    note_next(t);
}


static int grow(smos__timers_t *t)
{
    uint32_t room = t->room ? t->room * 2 : 64;
    if (t->room == SMOS__MAX_TIMERS) return -ENOSPC;
    smos__timer_t *entry = realloc(t->entry, room * sizeof *entry);
    if (!entry) return -ENOMEM;
    t->entry = entry;
    uint32_t *heap = realloc(t->heap, room * sizeof *heap);
    if (!heap) return -ENOMEM;
    t->heap = heap;
    t->room = room;
    return 0;
}


int smos__timers_set(smos__timers_t *t, const smos__timer_t *timer, uint64_t *number)
{
    uint32_t e = t->free, turn = 1;
    if (e == NONE && t->used == t->room) {
        int status = grow(t);
        if (status) return status;
    }
    if (e != NONE) {
        t->free = t->entry[e].place;
        turn = t->entry[e].turn;
    } else {
        e = t->used++;
    }
    t->entry[e] = *timer;
    t->entry[e].turn = turn;
    t->entry[e].order = t->orders++;
    t->heap[t->count] = e;
    up(t, t->count++);
    note_next(t);
    if (number) *number = (uint64_t)turn << 32 | e;
    return 0;
}


int smos__timers_cancel(smos__timers_t *t, const smos_box_t *box, uint64_t number)
{
    uint32_t e = (uint32_t)number;
    if (e >= t->used || t->entry[e].box != box || t->entry[e].turn != (uint32_t)(number >> 32)) return -ENOENT;
    take_out(t, e);
    return 0;
}


void smos__timers_drop(smos__timers_t *t, const smos_box_t *box)
{
    for (uint32_t e = 0; e < t->used; e++)
        if (t->entry[e].box == box) take_out(t, e);
}


void smos__timers_shift(smos__timers_t *t, int64_t by_ns)
{
    for (uint32_t i = 0; i < t->count; i++) t->entry[t->heap[i]].due_ns += by_ns;
    note_next(t);
}


bool smos__timers_due(smos__timers_t *t, int64_t now_ns, smos__timer_t *out, uint64_t *number)
{
    if (t->next_ns > now_ns) return false;
    uint32_t e = t->heap[0];
    smos__timer_t *timer = &t->entry[e];
    *out = *timer;
    *number = 0;
    if (timer->period_ns) {
        *number = (uint64_t)timer->turn << 32 | e;
        timer->due_ns += timer->period_ns;
        if (timer->due_ns <= now_ns) timer->due_ns = now_ns + timer->period_ns;
        timer->order = t->orders++;
        down(t, 0);
        note_next(t);
    } else {
        take_out(t, e);
    }
    return true;
}
