/* See splice.h. All numbers wrap: they are compared by their differences (RFC 9293 3.4). */
#include "edit/splice.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tcp/sequence.h"


static uint32_t shift_of(const smos__splice_edit_t *e) { return e->length - e->removed; }
static uint32_t end_of(const smos__splice_edit_t *e) { return e->at + e->removed; }


void smos__splice_clear(smos__splice_t *s)
{
    for (uint32_t i = 0; i < s->count; i++) free(s->edit[i].text);
    memset(s, 0, sizeof *s);
}


/* Does the edit lie wholly before a segment that begins at `seq`? */
static bool before(const smos__splice_edit_t *e, uint32_t seq)
{
    if (e->removed) return smos__seq_leq(end_of(e), seq);
    return smos__seq_lt(e->at, seq) || (e->at == seq && e->behind);
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
    uint32_t end = seq + length, at = seq, shift = s->shift, i = 0;
    for (; i < s->count && before(&s->edit[i], seq); i++) shift += shift_of(&s->edit[i]);
    *edited = seq + shift;
    if (!length && !fin) { /* nothing but an acknowledgement: what is sent next */
        *edited = smos__splice_next(s, seq);
        return 0;
    }
    for (; i < s->count; i++) {
        const smos__splice_edit_t *e = &s->edit[i];
        bool with_next = !e->removed && !e->behind;
        if (smos__seq_gt(e->at, end) || (e->at == end && (e->removed || (with_next && !fin) || (e->behind && !length)))) break;
        if (smos__seq_geq(e->at, seq)) {
            write_bytes(&w, data + (at - seq), e->at - at);
            write_bytes(&w, e->text, e->length);
        } else { /* it begins among bytes that were taken out: their text went with the first */
            *edited = e->at + shift + e->length;
        }
        at = end_of(e);
        shift += shift_of(e);
        if (smos__seq_geq(at, end)) at = end;
    }
    if (smos__seq_lt(at, end)) write_bytes(&w, data + (at - seq), end - at);
    return w.full ? -1 : (int64_t)w.used;
}


uint32_t smos__splice_next(const smos__splice_t *s, uint32_t seq)
{
    uint32_t shift = s->shift;
    for (uint32_t i = 0; i < s->count && smos__seq_leq(s->edit[i].at, seq); i++) {
        const smos__splice_edit_t *e = &s->edit[i];
        if (smos__seq_lt(seq, end_of(e))) return e->at + shift + e->length;
        shift += shift_of(e);
    }
    return seq + shift;
}


uint32_t smos__splice_ack(const smos__splice_t *s, uint32_t ack)
{
    uint32_t shift = s->shift;
    for (uint32_t i = 0; i < s->count; i++) {
        const smos__splice_edit_t *e = &s->edit[i];
        uint32_t start = e->at + shift;
        if (smos__seq_lt(ack, start)) break;
        if (smos__seq_lt(ack, start + e->length)) return e->behind ? e->at - 1 : e->at; /* until the text is there, so is not the byte it goes with */
        shift += shift_of(e);
    }
    return ack - shift;
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
    uint32_t shift = s->shift, i = 0, limit = at + removed;
    /* Those whose text ends at `at` stay as they are: it may be acknowledged, and an acknowledgement is not taken back. */
    for (; i < s->count; i++) {
        uint32_t start = s->edit[i].at + shift;
        if (smos__seq_lt(at, start + s->edit[i].length)) break;
        shift += shift_of(&s->edit[i]);
    }
    p.first = i;
    p.at = at - shift;
    if (i < s->count && smos__seq_geq(at, s->edit[i].at + shift)) { /* within the text of this one */
        const smos__splice_edit_t *e = &s->edit[i];
        p.head = e->text;
        p.head_length = at - (e->at + shift);
        p.at = e->at;
        p.behind = e->behind;
    }
    p.end = limit - shift;
    for (; i < s->count; i++) {
        const smos__splice_edit_t *e = &s->edit[i];
        uint32_t start = e->at + shift;
        bool mine = i == p.first && p.head; /* begun within it */
        if (!mine && smos__seq_geq(start, limit)) break;
        shift += shift_of(e);
        p.end = end_of(e);
        if (smos__seq_lt(limit, start + e->length)) {
            p.tail = e->text + (limit - start);
            p.tail_length = e->length - (limit - start);
            i++;
            break;
        }
        p.end = smos__seq_max(p.end, limit - shift);
    }
    p.last = i;
    return p;
}


int smos__splice_add(smos__splice_t *s, uint32_t at, uint32_t removed, const uint8_t *text, uint32_t length, bool behind)
{
    plan_t p = plan_of(s, at, removed, behind);
    uint32_t total = p.head_length + length + p.tail_length, freed = 0;
    for (uint32_t i = p.first; i < p.last; i++) freed += s->edit[i].length;
    if (p.last == p.first && s->count == SMOS__SPLICE_EDITS) return -ENOSPC;
    if (s->text - freed + total > SMOS__SPLICE_TEXT) return -ENOSPC;
    uint8_t *made = malloc(total ? total : 1);
    if (!made) return -ENOMEM;
    if (p.head_length) memcpy(made, p.head, p.head_length);
    if (length) memcpy(made + p.head_length, text, length);
    if (p.tail_length) memcpy(made + p.head_length + length, p.tail, p.tail_length);
    for (uint32_t i = p.first; i < p.last; i++) free(s->edit[i].text);
    uint32_t kept = s->count - p.last;
    memmove(&s->edit[p.first + 1], &s->edit[p.last], kept * sizeof s->edit[0]);
    s->edit[p.first] = (smos__splice_edit_t){p.at, p.end - p.at, total, p.behind && p.end == p.at, made};
    s->count = p.first + 1 + kept;
    s->text += total - freed;
    return 0;
}


void smos__splice_acked(smos__splice_t *s, uint32_t ack)
{
    uint32_t gone = 0;
    for (; gone < s->count; gone++) {
        const smos__splice_edit_t *e = &s->edit[gone];
        if (smos__seq_lt(ack, e->at + s->shift + e->length)) break;
        if (!e->length && ack == e->at + s->shift) break; /* the byte before it was acknowledged: the ones taken out may come again */
        s->shift += shift_of(e);
        s->text -= e->length;
        free(e->text);
    }
    if (!gone) return;
    s->count -= gone;
    memmove(&s->edit[0], &s->edit[gone], s->count * sizeof s->edit[0]);
}
