/* See history.h. */
#include "socket/history.h"

#include <errno.h>
#include <sys/mman.h>

#define MANY_SEGMENTS UINT16_MAX


static size_t bytes_of(uint32_t capacity) { return (size_t)capacity * 2 * sizeof(smos__assembler_t); }


void smos__history_free(smos__history_t *h)
{
    if (h->kept) munmap(h->kept, bytes_of(h->capacity));
    h->kept = NULL;
}


static int reserve(smos__history_t *h, uint32_t capacity)
{
    void *memory = mmap(NULL, bytes_of(capacity), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return -ENOMEM;
    h->kept = memory;
    h->capacity = capacity;
    return 0;
}


/* Fresh memory is zero, which is no empty list. */
static smos__assembler_t *list_of(smos__assembler_t *a)
{
    if (!a->bytes) smos__assembler_init(a);
    return a;
}


int smos__history_keep(smos__history_t *h, smos__arena_t *arena, uint32_t flow, int receiver, uint64_t offset, const uint8_t *data, uint32_t length, uint32_t most)
{
    if (!h->kept && reserve(h, arena->header->capacity) < 0) return -ENOMEM;
    smos__assembler_t *a = list_of(&h->kept[2 * (size_t)flow + (size_t)receiver]);
    if (length > most) {
        offset += length - most;
        data += length - most;
        length = most;
    }
    if (offset + length > most) smos__assembler_trim(a, arena->pool, offset + length - most);
    smos__insert_result_t r;
    smos__assembler_insert(a, arena->pool, offset, data, length, SMOS__OVERLAP_LAST, UINT32_MAX, MANY_SEGMENTS, &r);
    if (r.full) {
        h->given_up += length - r.stored;
        smos__assembler_clear(a, arena->pool);
        smos__assembler_insert(a, arena->pool, offset, data, length, SMOS__OVERLAP_LAST, UINT32_MAX, MANY_SEGMENTS, &r);
        if (r.full) smos__assembler_clear(a, arena->pool);
    }
    return 0;
}


void smos__history_limit(smos__history_t *h, smos__arena_t *arena, uint32_t flow, int receiver, uint64_t next, uint32_t most)
{
    if (!h->kept) return;
    smos__assembler_t *a = &h->kept[2 * (size_t)flow + (size_t)receiver];
    if (!a->bytes) return;
    if (!most) smos__assembler_clear(a, arena->pool);
    else if (next > most) smos__assembler_trim(a, arena->pool, next - most);
}


void smos__history_forget(smos__history_t *h, smos__arena_t *arena, uint32_t flow)
{
    if (!h->kept) return;
    for (size_t side = 0; side < 2; side++) {
        smos__assembler_t *a = &h->kept[2 * (size_t)flow + side];
        if (a->bytes) smos__assembler_clear(a, arena->pool);
    }
}


const smos__assembler_t *smos__history_of(const smos__history_t *h, uint32_t flow, int receiver)
{
    if (!h->kept) return NULL;
    const smos__assembler_t *a = &h->kept[2 * (size_t)flow + (size_t)receiver];
    return a->bytes ? a : NULL;
}
