/* The assembler's reference: a map of bytes, each with its value and the bounds of the segment that it came with. The rules are a
 * table of their own, filled in from the literature (see the sources named in overlap.c), not the engine's function. */
#ifndef SMOS_ASSEMBLER_MODEL_H
#define SMOS_ASSEMBLER_MODEL_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "tcp/assembler.h"

#define MODEL_BYTES 200000

/* Three groups: the new segment begins before, with, after the old one; in each: it ends before, with, after it. N: the new one's bytes. */
static const char *const MODEL_RULES[SMOS__OVERLAP_POLICIES] = {
    [SMOS__OVERLAP_FIRST] = "OOO" "OOO" "OOO",       [SMOS__OVERLAP_LAST] = "NNN" "NNN" "NNN",
    [SMOS__OVERLAP_BSD] = "NNN" "OOO" "OOO",         [SMOS__OVERLAP_LINUX] = "NNN" "OON" "OOO",
    [SMOS__OVERLAP_OLD_LINUX] = "NNN" "ONN" "OOO",   [SMOS__OVERLAP_SOLARIS] = "ONN" "ONN" "OON",
    [SMOS__OVERLAP_OLD_SOLARIS] = "OOO" "OOO" "OOO", [SMOS__OVERLAP_HPUX10] = "NNN" "OOO" "OOO",
    [SMOS__OVERLAP_HPUX11] = "ONN" "ONN" "OON",      [SMOS__OVERLAP_IRIX] = "NNN" "OOO" "OOO",
    [SMOS__OVERLAP_MACOS] = "NNN" "OOO" "OOO",       [SMOS__OVERLAP_WINDOWS] = "NNN" "OOO" "OOO",
    [SMOS__OVERLAP_WINDOWS2K3] = "NNN" "OOO" "OOO",  [SMOS__OVERLAP_VISTA] = "OOO" "OOO" "OOO",
    [SMOS__OVERLAP_BSD_RIGHT] = "OOO" "NNN" "NNN",
};

typedef struct model_byte {
    bool held;
    uint8_t value;
    uint32_t start, end; /* of its segment */
} model_byte_t;

typedef struct model {
    model_byte_t byte[MODEL_BYTES];
} model_t;

static inline uint32_t model_order(uint32_t fresh, uint32_t old) { return fresh < old ? 0 : fresh == old ? 1 : 2; }

static inline bool model_new_wins(int policy, const model_byte_t *old, uint32_t start, uint32_t end)
{
    return MODEL_RULES[policy][3 * model_order(start, old->start) + model_order(end, old->end)] == 'N';
}

/* Applies [start, upto) of the segment [start, end). */
static inline void model_insert(model_t *m, uint32_t start, uint32_t end, uint32_t upto, const uint8_t *data, int policy, smos__insert_result_t *r)
{
    memset(r, 0, sizeof *r);
    for (uint32_t i = start; i < upto; i++) {
        model_byte_t *b = &m->byte[i];
        bool wins = !b->held || model_new_wins(policy, b, start, end);
        if (!b->held) {
            r->stored++;
        } else if (b->value == data[i - start]) {
            r->duplicate++;
        } else {
            if (!r->conflicting++) r->conflict_offset = i;
            *(wins ? &r->took_new : &r->kept_old) = 1;
        }
        if (wins) *b = (model_byte_t){ true, data[i - start], start, end };
    }
}

#endif
