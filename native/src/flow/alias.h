/* alias.h: the other name of a flow whose addresses a middlebox translates: how its packets look beyond the box. Looked up only where a tuple leads to
 * no flow, and there are aliases. Arrays by slot, reserved when the first is set. */
#ifndef SMOS__ALIAS_H
#define SMOS__ALIAS_H

#include <stdbool.h>

#include "flow/table.h"

typedef struct smos__aliases {
    uint32_t *head;      /* slot + 1 of the first in a chain, 0 none */
    uint32_t *next;      /* by slot: slot + 1 */
    smos_tuple_t *tuple; /* by slot: client is src; proto 0: none */
    uint32_t mask;       /* chains - 1 */
    uint32_t capacity, count;
} smos__aliases_t;

void smos__aliases_free(smos__aliases_t *);
/* The flow's packets beyond the box have this tuple (client is src). 0, -ENOMEM. Replaces the one before. */
int smos__alias_set(smos__aliases_t *, uint32_t capacity, uint32_t flow, const smos_tuple_t *, uint32_t hash, uint32_t old_hash);
void smos__alias_drop(smos__aliases_t *, uint32_t flow, uint32_t hash);
/* The flow, and who sent the packet; SMOS__NO_FLOW. */
uint32_t smos__alias_find(const smos__aliases_t *, const smos_tuple_t *, uint32_t hash, int *from);
static inline const smos_tuple_t *smos__alias_of(const smos__aliases_t *a, uint32_t flow)
{
    return a->tuple && a->tuple[flow].proto ? &a->tuple[flow] : NULL;
}

#endif
