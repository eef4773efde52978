/* Fragments made by hand, and the defragmenter's reference: a map of bytes with the bounds of the fragment that each came with; the
 * rules are a table of their own, filled in from the literature (see datagram.c). */
#ifndef SMOS_DEFRAG_MODEL_H
#define SMOS_DEFRAG_MODEL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "event/anomaly.h"
#include "wire/defrag.h"

/* Three groups: the new fragment begins before, with, after the old one; in each: it ends before, with, after it. N: the new one's bytes. */
static const char *const DEFRAG_RULES[SMOS__DEFRAG_POLICIES] = {
    [SMOS__DEFRAG_FIRST] = "OOO" "OOO" "OOO", [SMOS__DEFRAG_LAST] = "NNN" "NNN" "NNN",
    [SMOS__DEFRAG_BSD] = "NNN" "OOO" "OOO",   [SMOS__DEFRAG_BSD_RIGHT] = "OOO" "NNN" "NNN",
    [SMOS__DEFRAG_LINUX] = "NNN" "NNN" "OOO", [SMOS__DEFRAG_WINDOWS] = "OON" "OOO" "OOO",
    [SMOS__DEFRAG_SOLARIS] = "ONN" "OOO" "OOO",
};

typedef struct part {
    uint32_t offset, length;
    bool more;
    uint8_t data[65536];
} part_t;

typedef struct whole {
    bool held[70000];
    uint8_t value[70000];
    uint32_t start[70000], stop[70000];
    uint32_t end; /* UINT32_MAX: unknown */
    uint32_t highest;
} whole_t;

static inline uint32_t whole_order(uint32_t fresh, uint32_t old) { return fresh < old ? 0 : fresh == old ? 1 : 2; }

static inline void whole_clear(whole_t *w)
{
    memset(w->held, 0, sizeof w->held);
    w->end = UINT32_MAX;
    w->highest = 0;
}

/* False if the part contradicts what is known of the end. */
static inline bool whole_add(whole_t *w, const part_t *p, int policy)
{
    uint32_t end = p->offset + p->length;
    if (p->more ? end > w->end : end < w->highest || (w->end != UINT32_MAX && end != w->end)) return false;
    if (!p->more) w->end = end;
    if (end > w->highest) w->highest = end;
    for (uint32_t i = p->offset; i < end; i++) {
        if (w->held[i] && DEFRAG_RULES[policy][3 * whole_order(p->offset, w->start[i]) + whole_order(end, w->stop[i])] == 'O') continue;
        w->held[i] = true;
        w->value[i] = p->data[i - p->offset];
        w->start[i] = p->offset;
        w->stop[i] = end;
    }
    return true;
}

static inline bool whole_complete(const whole_t *w)
{
    if (w->end == UINT32_MAX) return false;
    for (uint32_t i = 0; i < w->end; i++)
        if (!w->held[i]) return false;
    return true;
}

static inline void put16(uint8_t *p, uint32_t v) { p[0] = (uint8_t)(v >> 8), p[1] = (uint8_t)v; }
static inline uint32_t get16(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }

static inline uint32_t sum16(const uint8_t *p, uint32_t length)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < length; i++) sum += i % 2 ? p[i] : (uint32_t)p[i] << 8;
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

/* An IPv4 fragment at `out`; its length. `options` bytes of options (a multiple of 4) are no-operations. */
static inline uint32_t make4(uint8_t *out, const part_t *p, uint16_t id, uint32_t options)
{
    uint32_t header = 20 + options;
    memset(out, 1, header);
    out[0] = (uint8_t)(0x40 | header / 4);
    out[1] = 0;
    put16(out + 2, header + p->length);
    put16(out + 4, id);
    put16(out + 6, (p->more ? 0x2000u : 0) | p->offset / 8);
    out[8] = 64;
    out[9] = 17;
    put16(out + 10, 0);
    memcpy(out + 12, "\xc0\x00\x02\x01\xc0\x00\x02\x02", 8);
    put16(out + 10, ~sum16(out, header));
    memcpy(out + header, p->data, p->length);
    return header + p->length;
}

/* An IPv6 fragment of UDP; with `extensions` there is a hop-by-hop and a destination header before the fragment header. */
static inline uint32_t make6(uint8_t *out, const part_t *p, uint32_t id, bool extensions)
{
    uint32_t at = 40;
    memset(out, 0, 40);
    out[0] = 0x60;
    out[6] = extensions ? 0 : 44;
    out[7] = 64;
    memset(out + 8, 0xfd, 16);
    memset(out + 24, 0xfe, 16);
    if (extensions) {
        memcpy(out + 40, "\x3c\x00\x01\x04\x00\x00\x00\x00", 8);
        memcpy(out + 48, "\x2c\x01\x01\x0c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", 16);
        at = 64;
    }
    out[at] = 17;
    out[at + 1] = 0;
    put16(out + at + 2, p->offset | p->more);
    put16(out + at + 4, id >> 16);
    put16(out + at + 6, id & 0xffff);
    memcpy(out + at + 8, p->data, p->length);
    put16(out + 4, at - 40 + 8 + p->length);
    return at + 8 + p->length;
}

#endif
