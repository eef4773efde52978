/* See pool.h. Pages beyond `fresh` were never used, so an empty pool touches none of its memory but the header. Page 0 is none, so that no block is
 * number 0, SMOS__NO_BLOCK. */
#include "tcp/pool.h"

#define PER_PAGE (SMOS__BLOCK_LARGE / SMOS__BLOCK_SMALL)
#define NO_PAGE UINT32_MAX
#define MOST_PAGES (UINT32_MAX / PER_PAGE - 1)

enum { FREE, LARGE, CUT };

typedef struct page {
    uint32_t next, prev; /* of the free pages (next alone), or of the cut pages with room */
    uint8_t kind;
    uint8_t taken; /* CUT: a bit per small block */
    uint16_t reserved;
} page_t;

struct smos__pool {
    uint64_t used;
    uint64_t data; /* bytes from here to page 1 */
    uint32_t pages, fresh; /* the last page; the next that was never used */
    uint32_t free, cut; /* heads */
    page_t page[];
};


static uint32_t page_count(size_t data_bytes)
{
    size_t pages = data_bytes / SMOS__BLOCK_LARGE;
    if (pages < 1) pages = 1;
    return pages > MOST_PAGES ? MOST_PAGES : (uint32_t)pages;
}


static size_t data_start(uint32_t pages)
{
    return (sizeof(smos__pool_t) + ((size_t)pages + 1) * sizeof(page_t) + 63) & ~(size_t)63;
}


size_t smos__pool_bytes(size_t data_bytes)
{
    uint32_t pages = page_count(data_bytes);
    return data_start(pages) + (size_t)pages * SMOS__BLOCK_LARGE;
}


smos__pool_t *smos__pool_init(void *memory, size_t data_bytes)
{
    smos__pool_t *p = memory;
    uint32_t pages = page_count(data_bytes);
    *p = (smos__pool_t){ .data = data_start(pages), .pages = pages, .fresh = 1, .free = NO_PAGE, .cut = NO_PAGE };
    return p;
}


uint64_t smos__pool_used(const smos__pool_t *p) { return p->used; }
uint64_t smos__pool_size(const smos__pool_t *p) { return (uint64_t)p->pages * SMOS__BLOCK_LARGE; }


void *smos__pool_at(const smos__pool_t *p, uint32_t block)
{
    return (uint8_t *)(uintptr_t)p + p->data + (size_t)(block - PER_PAGE) * SMOS__BLOCK_SMALL;
}


uint32_t smos__pool_block_bytes(const smos__pool_t *p, uint32_t block)
{
    return p->page[block / PER_PAGE].kind == LARGE ? SMOS__BLOCK_LARGE : SMOS__BLOCK_SMALL;
}


static uint32_t take_page(smos__pool_t *p)
{
    uint32_t i = p->free;
    if (i != NO_PAGE)
        p->free = p->page[i].next;
    else if (p->fresh <= p->pages)
        i = p->fresh++;
    return i;
}


static void give_page(smos__pool_t *p, uint32_t i)
{
    p->page[i] = (page_t){ .kind = FREE, .next = p->free };
    p->free = i;
}


static void link_cut(smos__pool_t *p, uint32_t i)
{
    p->page[i].next = p->cut;
    p->page[i].prev = NO_PAGE;
    if (p->cut != NO_PAGE) p->page[p->cut].prev = i;
    p->cut = i;
}


static void unlink_cut(smos__pool_t *p, uint32_t i)
{
    const page_t *g = &p->page[i];
    if (g->prev == NO_PAGE)
        p->cut = g->next;
    else
        p->page[g->prev].next = g->next;
    if (g->next != NO_PAGE) p->page[g->next].prev = g->prev;
}


static uint32_t take_small(smos__pool_t *p)
{
    uint32_t i = p->cut;
    if (i == NO_PAGE) {
        i = take_page(p);
        if (i == NO_PAGE) return SMOS__NO_BLOCK;
        p->page[i] = (page_t){ .kind = CUT };
        link_cut(p, i);
    }
    page_t *g = &p->page[i];
    uint32_t k = (uint32_t)__builtin_ctz(~(uint32_t)g->taken);
    g->taken |= (uint8_t)(1u << k);
    if (g->taken == 0xff) unlink_cut(p, i);
    p->used += SMOS__BLOCK_SMALL;
    return i * PER_PAGE + k;
}


uint32_t smos__pool_take(smos__pool_t *p, bool large)
{
    if (!large) return take_small(p);
    uint32_t i = take_page(p);
    if (i == NO_PAGE) return SMOS__NO_BLOCK;
    p->page[i] = (page_t){ .kind = LARGE };
    p->used += SMOS__BLOCK_LARGE;
    return i * PER_PAGE;
}


void smos__pool_give(smos__pool_t *p, uint32_t block)
{
    uint32_t i = block / PER_PAGE;
    page_t *g = &p->page[i];
    if (g->kind == LARGE) {
        p->used -= SMOS__BLOCK_LARGE;
        give_page(p, i);
        return;
    }
    p->used -= SMOS__BLOCK_SMALL;
    if (g->taken == 0xff) link_cut(p, i);
    g->taken &= (uint8_t)~(1u << (block % PER_PAGE));
    if (!g->taken) {
        unlink_cut(p, i);
        give_page(p, i);
    }
}
