/* See splice.h. All numbers wrap: they are compared by their differences (RFC 9293 3.4). */
#include "edit/splice.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tcp/sequence.h"


static uint32_t shift_of(const smos__splice_edit_t *e) { return e->length - e->removed; }
static uint32_t end_of(const smos__splice_edit_t *e) { return e->at + e->removed; }
static uint32_t start_of(const smos__splice_edit_t *e) { return e->at + e->shift; } /* of its text, edited */
static smos__splice_edit_t *edit_of(const smos__splice_t *s, uint32_t i) { return s->array + s->first + i; }
static uint32_t shift_at(const smos__splice_t *s, uint32_t i) { return i < s->count ? edit_of(s, i)->shift : s->shift; }


void smos__splice_clear(smos__splice_t *s)
{
    for (uint32_t i = 0; i < s->count; i++) free(edit_of(s, i)->text);
    free(s->array);
    memset(s, 0, sizeof *s);
}


/* Does the edit lie wholly before a segment that begins at `seq`? */
static bool before(const smos__splice_edit_t *e, uint32_t seq)
{
    if (e->removed) return smos__seq_leq(end_of(e), seq);
    return smos__seq_lt(e->at, seq) || (e->at == seq && e->behind);
}

static bool original_before(const smos__splice_edit_t *e, uint32_t seq) { return smos__seq_leq(end_of(e), seq); }
static bool text_before(const smos__splice_edit_t *e, uint32_t edited) { return smos__seq_leq(start_of(e) + e->length, edited); }


/* The first edit that does not lie before `number`, as `lies_before` sees it; count: all do. */
static uint32_t search(const smos__splice_t *s, bool (*lies_before)(const smos__splice_edit_t *, uint32_t), uint32_t number)
{
    uint32_t low = 0, high = s->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (lies_before(edit_of(s, middle), number))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}


typedef struct writer {
    uint8_t *out;
    uint32_t used, room;
    bool full;
} writer_t;


static void write_bytes(writer_t *w, const uint8_t *data, uint32_t length)
{
    if (length > w->room - w->used) {
        w->full = true;
        return;
    }
    if (length) memcpy(w->out + w->used, data, length);
    w->used += length;
}


int64_t smos__splice_segment(const smos__splice_t *s, uint32_t seq, const uint8_t *data, uint32_t length, bool fin, uint8_t *out, uint32_t room, uint32_t *edited)
{
    static const uint8_t nothing[1];
    writer_t w = {out, 0, room, false};
    if (!length) data = nothing; /* a FIN alone has no payload to point to */
    if (!length && !fin) { /* nothing but an acknowledgement: what is sent next */
        *edited = smos__splice_next(s, seq);
        return 0;
    }
    uint32_t end = seq + length, at = seq, i = search(s, before, seq);
    *edited = seq + shift_at(s, i);
    for (; i < s->count; i++) {
        const smos__splice_edit_t *e = edit_of(s, i);
        bool with_next = !e->removed && !e->behind;
        if (smos__seq_gt(e->at, end) || (e->at == end && (e->removed || (with_next && !fin) || (e->behind && !length)))) break;
        if (smos__seq_geq(e->at, seq)) {
            write_bytes(&w, data + (at - seq), e->at - at);
            write_bytes(&w, e->text, e->length);
        } else { /* it begins among bytes that were taken out: their text went with the first */
            *edited = start_of(e) + e->length;
        }
        at = end_of(e);
        if (smos__seq_geq(at, end)) at = end;
    }
    if (smos__seq_lt(at, end)) write_bytes(&w, data + (at - seq), end - at);
    return w.full ? -1 : (int64_t)w.used;
}


uint32_t smos__splice_next(const smos__splice_t *s, uint32_t seq)
{
    uint32_t i = search(s, original_before, seq);
    const smos__splice_edit_t *e = i < s->count ? edit_of(s, i) : NULL;
    return e && smos__seq_leq(e->at, seq) ? start_of(e) + e->length : seq + shift_at(s, i);
}


uint32_t smos__splice_ack(const smos__splice_t *s, uint32_t ack)
{
    uint32_t i = search(s, text_before, ack);
    const smos__splice_edit_t *e = i < s->count ? edit_of(s, i) : NULL;
    if (e && smos__seq_geq(ack, start_of(e))) return e->behind ? e->at - 1 : e->at; /* until the text is there, so is not the byte it goes with */
    return ack - shift_at(s, i);
}


/* ---- adding ---- */

typedef struct plan {
    uint32_t first, last; /* edits [first, last) become part of the new one */
    uint32_t at, end;     /* original bytes that it takes out */
    const uint8_t *head, *tail; /* what stays of the texts of the first and the last */
    uint32_t head_length, tail_length;
    bool behind;
} plan_t;


static plan_t plan_of(const smos__splice_t *s, uint32_t at, uint32_t removed, bool behind)
{
    plan_t p = {.behind = behind};
    /* Those whose text ends at `at` stay as they are: it may be acknowledged, and an acknowledgement is not taken back. */
    uint32_t i = search(s, text_before, at), limit = at + removed, shift = shift_at(s, i);
    p.first = i;
    p.at = at - shift;
    if (i < s->count && smos__seq_geq(at, start_of(edit_of(s, i)))) { /* within the text of this one */
        const smos__splice_edit_t *e = edit_of(s, i);
        p.head = e->text;
        p.head_length = at - start_of(e);
        p.at = e->at;
        p.behind = e->behind;
    }
    p.end = limit - shift;
    for (; i < s->count; i++) {
        const smos__splice_edit_t *e = edit_of(s, i);
        uint32_t start = start_of(e);
        bool mine = i == p.first && p.head; /* begun within it */
        if (!mine && smos__seq_geq(start, limit)) break;
        p.end = end_of(e);
        if (smos__seq_lt(limit, start + e->length)) {
            p.tail = e->text + (limit - start);
            p.tail_length = e->length - (limit - start);
            i++;
            break;
        }
        p.end = smos__seq_max(p.end, limit - shift_at(s, i + 1));
    }
    p.last = i;
    return p;
}


/* Room for one edit more behind the last. */
static bool make_room(smos__splice_t *s)
{
    if (s->first + s->count < s->room) return true;
    if (s->first >= s->count && s->first) {
        memmove(s->array, s->array + s->first, s->count * sizeof *s->array);
        s->first = 0;
        return true;
    }
    uint32_t room = s->room ? s->room * 2 : 4;
    smos__splice_edit_t *more = realloc(s->array, room * sizeof *more);
    if (!more) return false;
    s->array = more;
    s->room = room;
    return true;
}


int smos__splice_add(smos__splice_t *s, uint32_t at, uint32_t removed, const uint8_t *text, uint32_t length, bool behind)
{
    plan_t p = plan_of(s, at, removed, behind);
    uint32_t total = p.head_length + length + p.tail_length, freed = 0;
    for (uint32_t i = p.first; i < p.last; i++) freed += edit_of(s, i)->length;
    if (p.last == p.first && s->count == SMOS__SPLICE_EDITS) return -ENOSPC;
    if (s->text - freed + total > SMOS__SPLICE_TEXT) return -ENOSPC;
    uint8_t *made = malloc(total ? total : 1);
    if (!made || !make_room(s)) return free(made), -ENOMEM;
    if (p.head_length) memcpy(made, p.head, p.head_length);
    if (length) memcpy(made + p.head_length, text, length);
    if (p.tail_length) memcpy(made + p.head_length + length, p.tail, p.tail_length);
    smos__splice_edit_t e = {.at = p.at, .removed = p.end - p.at, .length = total, .shift = shift_at(s, p.first), .behind = p.behind && p.end == p.at, .text = made};
    uint32_t later = shift_at(s, p.last), kept = s->count - p.last;
    for (uint32_t i = p.first; i < p.last; i++) free(edit_of(s, i)->text);
    memmove(edit_of(s, p.first + 1), edit_of(s, p.last), kept * sizeof e);
    *edit_of(s, p.first) = e;
    s->count = p.first + 1 + kept;
    later = e.shift + shift_of(&e) - later; /* by how much what follows moves */
    for (uint32_t i = p.first + 1; later && i < s->count; i++) edit_of(s, i)->shift += later;
    s->shift += later;
    s->text += total - freed;
    return 0;
}


void smos__splice_acked(smos__splice_t *s, uint32_t ack)
{
    for (; s->count; s->first++, s->count--) {
        const smos__splice_edit_t *e = edit_of(s, 0);
        if (!text_before(e, ack)) break;
        if (!e->length && ack == start_of(e)) break; /* the byte before it was acknowledged: the ones taken out may come again */
        s->text -= e->length;
        free(e->text);
    }
    if (!s->count) {
        free(s->array);
        s->array = NULL;
        s->first = s->room = 0;
    }
}
