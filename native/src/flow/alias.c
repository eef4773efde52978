/* See alias.h. Chains; hashes are the flow table's, keyed. */
#include "flow/alias.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>


static void *reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}


void smos__aliases_free(smos__aliases_t *a)
{
    if (a->head) munmap(a->head, ((size_t)a->mask + 1) * sizeof *a->head);
    if (a->next) munmap(a->next, (size_t)a->capacity * sizeof *a->next);
    if (a->tuple) munmap(a->tuple, (size_t)a->capacity * sizeof *a->tuple);
    memset(a, 0, sizeof *a);
}


static int begin(smos__aliases_t *a, uint32_t capacity)
{
    a->mask = 1023;
    while (a->mask < capacity && a->mask < (1u << 24) - 1) a->mask = a->mask * 2 + 1;
    a->capacity = capacity;
    a->head = reserve(((size_t)a->mask + 1) * sizeof *a->head);
    a->next = reserve((size_t)capacity * sizeof *a->next);
    a->tuple = reserve((size_t)capacity * sizeof *a->tuple);
    if (a->head && a->next && a->tuple) return 0;
    smos__aliases_free(a);
    return -ENOMEM;
}


void smos__alias_drop(smos__aliases_t *a, uint32_t flow, uint32_t hash)
{
    if (!smos__alias_of(a, flow)) return;
    uint32_t *link = &a->head[hash & a->mask];
    while (*link && *link != flow + 1) link = &a->next[*link - 1];
    if (*link) *link = a->next[flow];
    a->tuple[flow].proto = 0;
    a->count--;
}


int smos__alias_set(smos__aliases_t *a, uint32_t capacity, uint32_t flow, const smos_tuple_t *tuple, uint32_t hash, uint32_t old_hash)
{
    if (!a->head && begin(a, capacity) < 0) return -ENOMEM;
    smos__alias_drop(a, flow, old_hash);
    a->tuple[flow] = *tuple;
    a->next[flow] = a->head[hash & a->mask];
    a->head[hash & a->mask] = flow + 1;
    a->count++;
    return 0;
}


uint32_t smos__alias_find(const smos__aliases_t *a, const smos_tuple_t *tuple, uint32_t hash, int *from)
{
    if (!a->count) return SMOS__NO_FLOW;
    for (uint32_t at = a->head[hash & a->mask]; at; at = a->next[at - 1])
        if (smos__tuple_match(&a->tuple[at - 1], tuple, from)) return at - 1;
    return SMOS__NO_FLOW;
}
