/* User-defined events of a module: a table that only grows, so that what refers to a removed event finds it removed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "event/box.h"


const smos__definition_t *smos__definition(const smos_box_t *box, uint32_t event)
{
    const smos__definition_t *found = NULL;
    for (uint32_t at = event; at >= SMOS_USER_EVENT;) {
        if (at - SMOS_USER_EVENT >= box->definition_count) return NULL;
        const smos__definition_t *d = &box->definitions[at - SMOS_USER_EVENT];
        if (!d->users) return NULL;
        if (!found) found = d;
        at = d->parent; /* always an older event: this ends */
    }
    return found;
}


static uint32_t equal_definition(const smos_box_t *box, uint32_t parent, smos_predicate_t predicate, const void *arg, size_t arg_size)
{
    for (uint32_t i = 0; i < box->definition_count; i++) {
        const smos__definition_t *d = &box->definitions[i];
        if (d->users && d->parent == parent && d->predicate == predicate && d->arg_size == arg_size && (!arg_size || !memcmp(d->arg, arg, arg_size))) return i;
    }
    return UINT32_MAX;
}


int smos__define(smos_box_t *box, uint32_t parent, smos_predicate_t predicate, const void *arg, size_t arg_size, uint32_t *out)
{
    const smos__definition_t *above = smos__definition(box, parent);
    if (parent >= SMOS_USER_EVENT ? !above : parent >= SMOS_EVENT_COUNT) return -ENOENT;
    if (!predicate && !above) return -EINVAL; /* only a predicate can raise it */
    if ((!arg && arg_size) || arg_size > UINT16_MAX) return -EINVAL;
    uint32_t i = predicate ? equal_definition(box, parent, predicate, arg, arg_size) : UINT32_MAX;
    if (i != UINT32_MAX) {
        box->definitions[i].users++;
        *out = SMOS_USER_EVENT + i;
        return 0;
    }
    uint32_t n = box->definition_count;
    if (n == SMOS__MAX_DEFINITIONS) return -ENOSPC;
    if (!(n & (n + 1)) || !box->definitions) { /* 0, 1, 3, 7 ... are full */
        smos__definition_t *more = realloc(box->definitions, (2 * (size_t)n + 1) * sizeof *more);
        if (!more) return -ENOMEM;
        box->definitions = more;
    }
    smos__definition_t *d = &box->definitions[n];
    *d = (smos__definition_t){.parent = parent, .root = above ? box->definitions[parent - SMOS_USER_EVENT].root : parent, .predicate = predicate, .arg_size = arg_size, .users = 1};
    if (arg_size) {
        d->arg = malloc(arg_size);
        if (!d->arg) return -ENOMEM;
        memcpy(d->arg, arg, arg_size);
    }
    box->definition_count++;
    *out = SMOS_USER_EVENT + n;
    return 0;
}


int smos__undefine(smos_box_t *box, uint32_t event)
{
    if (!smos__definition(box, event)) return -ENOENT;
    box->definitions[event - SMOS_USER_EVENT].users--;
    box->undefined = true;
    return 0;
}


void smos__definitions_free(smos_box_t *box)
{
    for (uint32_t i = 0; i < box->definition_count; i++) free(box->definitions[i].arg);
    free(box->definitions);
    box->definitions = NULL;
    box->definition_count = 0;
}
