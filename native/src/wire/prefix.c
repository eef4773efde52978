#include "wire/prefix.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>


static int longer_first(const void *a, const void *b)
{
    return (int)((const smos_prefix_policy_t *)b)->bits - (int)((const smos_prefix_policy_t *)a)->bits;
}


void smos__prefixes_sort(smos_prefix_policy_t *list, uint32_t count) { qsort(list, count, sizeof *list, longer_first); }


static bool holds(const smos_prefix_policy_t *p, const uint8_t address[16])
{
    uint32_t whole = p->bits / 8, rest = p->bits % 8;
    if (memcmp(p->address, address, whole) != 0) return false;
    return !rest || !((p->address[whole] ^ address[whole]) >> (8 - rest));
}


uint8_t smos__prefix_find(const smos_prefix_policy_t *list, uint32_t count, const uint8_t address[16], uint8_t version, uint8_t otherwise)
{
    for (uint32_t i = 0; i < count; i++) /* the list may be NULL */
        if (list[i].version == version && holds(&list[i], address)) return list[i].policy;
    return otherwise;
}
