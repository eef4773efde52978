/* INTERIM, until assembler.c lands: blocks of 2 KiB, first wins. */
#include <string.h>
#include "tcp/assembler.h"
#define W __attribute__((weak))
typedef struct { uint64_t off; uint32_t len, next; uint8_t data[2032]; } block;
struct smos__pool { uint64_t used, size; uint32_t free, high, n; uint32_t pad; };
static block *B(const smos__pool_t *p, uint32_t i) { return (block *)((uintptr_t)p + 4096) + i; }
W size_t smos__pool_bytes(size_t n) { return n + 8192; }
W smos__pool_t *smos__pool_init(void *m, size_t n) { smos__pool_t *p = m; p->size = n; p->n = (uint32_t)(n / sizeof(block)); p->free = SMOS__NO_BLOCK; return p; }
W uint64_t smos__pool_used(const smos__pool_t *p) { return p->used; }
W uint64_t smos__pool_size(const smos__pool_t *p) { return p->size; }
static uint32_t get(smos__pool_t *p) { uint32_t i = p->free; if (i != SMOS__NO_BLOCK) p->free = B(p, i)->next; else if (p->high < p->n) i = p->high++; else return i; p->used += sizeof(block); return i; }
static void put(smos__pool_t *p, uint32_t i) { B(p, i)->next = p->free; p->free = i; p->used -= sizeof(block); }
W void smos__assembler_init(smos__assembler_t *a) { memset(a, 0, sizeof *a); a->head = a->tail = SMOS__NO_BLOCK; }
W void smos__assembler_clear(smos__assembler_t *a, smos__pool_t *p) { while (a->head != SMOS__NO_BLOCK) { uint32_t n = B(p, a->head)->next; put(p, a->head); a->head = n; } smos__assembler_init(a); }
W void smos__assembler_insert(smos__assembler_t *a, smos__pool_t *p, uint64_t o, const uint8_t *d, uint32_t n, int pol, uint32_t mb, uint32_t ms, smos__insert_result_t *r)
{
    (void)pol; memset(r, 0, sizeof *r);
    uint32_t *link = &a->head;
    while (n) {
        while (*link != SMOS__NO_BLOCK && B(p, *link)->off + B(p, *link)->len <= o) link = &B(p, *link)->next;
        uint32_t take = n; 
        if (*link != SMOS__NO_BLOCK && B(p, *link)->off <= o) {
            block *b = B(p, *link); uint32_t at = (uint32_t)(o - b->off); take = b->len - at < n ? b->len - at : n;
            if (memcmp(b->data + at, d, take)) r->conflicting += take; else r->duplicate += take;
        } else {
            if (*link != SMOS__NO_BLOCK && B(p, *link)->off < o + n) take = (uint32_t)(B(p, *link)->off - o);
            if (take > 2032) take = 2032;
            if (a->bytes + take > mb || a->segments >= ms) { r->full = 1; return; }
            uint32_t i = get(p); if (i == SMOS__NO_BLOCK) { r->full = 1; return; }
            block *b = B(p, i); b->off = o; b->len = take; memcpy(b->data, d, take); b->next = *link; *link = i; a->bytes += take; a->segments++; r->stored += take;
        }
        o += take; d += take; n -= take;
    }
}
W uint32_t smos__assembler_compare(const smos__assembler_t *a, const smos__pool_t *p, uint64_t o, const uint8_t *d, uint32_t n, uint64_t *first)
{ (void)a; (void)p; (void)o; (void)d; (void)n; *first = 0; return 0; }
W uint32_t smos__assembler_new_wins(const smos__assembler_t *a, const smos__pool_t *p, uint64_t o, uint32_t n, int pol) { (void)a; (void)p; (void)o; (void)n; (void)pol; return 0; }
W uint32_t smos__assembler_front(const smos__assembler_t *a, const smos__pool_t *p, uint64_t *o, const uint8_t **d)
{ if (a->head == SMOS__NO_BLOCK) return 0; *o = B(p, a->head)->off; *d = B(p, a->head)->data; return B(p, a->head)->len; }
W void smos__assembler_trim(smos__assembler_t *a, smos__pool_t *p, uint64_t o)
{
    while (a->head != SMOS__NO_BLOCK && B(p, a->head)->off < o) {
        block *b = B(p, a->head); uint64_t cut = o - b->off;
        if (cut >= b->len) { uint32_t n = b->next; a->bytes -= b->len; a->segments--; put(p, a->head); a->head = n; }
        else { memmove(b->data, b->data + cut, b->len - cut); b->off += cut; b->len -= (uint32_t)cut; a->bytes -= (uint32_t)cut; }
    }
}
W uint32_t smos__assembler_ranges(const smos__assembler_t *a, const smos__pool_t *p, uint64_t (*r)[2], uint32_t max)
{ uint32_t n = 0; for (uint32_t i = a->head; i != SMOS__NO_BLOCK && n < max; i = B(p, i)->next) { if (n && r[n - 1][1] == B(p, i)->off) r[n - 1][1] += B(p, i)->len; else { r[n][0] = B(p, i)->off; r[n][1] = B(p, i)->off + B(p, i)->len; n++; } } return n; }
