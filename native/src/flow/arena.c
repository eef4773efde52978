#include "flow/arena.h"

#include <string.h>

#define AHEAD 4 /* slots */


static size_t page_up(size_t n) { return (n + 4095) & ~(size_t)4095; }


size_t smos__arena_bytes(uint32_t capacity, size_t pool_bytes)
{
    return page_up(sizeof(smos__arena_header_t)) + page_up((size_t)capacity * sizeof(smos__flow_t)) +
           page_up((size_t)capacity * sizeof(smos__flow_cold_t)) + page_up((size_t)capacity * sizeof(smos__flow_conn_t)) + page_up(smos__pool_bytes(pool_bytes));
}


void smos__arena_init(smos__arena_t *a, void *memory, uint32_t capacity, size_t pool_bytes)
{
    uint8_t *base = memory;
    smos__arena_header_t *h = memory;
    memset(h, 0, sizeof *h);
    memcpy(h->magic, "SMOSFLOW", 8);
    h->version = 2;
    h->capacity = capacity;
    h->hot_bytes = sizeof(smos__flow_t);
    h->cold_bytes = sizeof(smos__flow_cold_t);
    h->conn_bytes = sizeof(smos__flow_conn_t);
    h->hot_offset = page_up(sizeof *h);
    h->cold_offset = h->hot_offset + page_up((size_t)capacity * sizeof(smos__flow_t));
    h->conn_offset = h->cold_offset + page_up((size_t)capacity * sizeof(smos__flow_cold_t));
    h->pool_offset = h->conn_offset + page_up((size_t)capacity * sizeof(smos__flow_conn_t));
    h->bytes = smos__arena_bytes(capacity, pool_bytes);
    h->free_head = SMOS__NO_FLOW;
    a->header = h;
    a->hot = (smos__flow_t *)(base + h->hot_offset);
    a->cold = (smos__flow_cold_t *)(base + h->cold_offset);
    a->conn = (smos__flow_conn_t *)(base + h->conn_offset);
    a->pool = smos__pool_init(base + h->pool_offset, pool_bytes);
}


uint32_t smos__arena_take(smos__arena_t *a)
{
    smos__arena_header_t *h = a->header;
    uint32_t index = h->free_head;
    if (index != SMOS__NO_FLOW) {
        h->free_head = a->cold[index].next_free;
        if (h->free_head != SMOS__NO_FLOW) smos__arena_fetch(a, h->free_head);
    } else if (h->high_water < h->capacity) {
        index = h->high_water++; /* memory that no flow needed yet stays untouched, and is zero */
        if (index + AHEAD < h->capacity) smos__arena_fetch(a, index + AHEAD);
        a->hot[index].generation = 3;
        h->in_use++;
        return index;
    } else {
        return SMOS__NO_FLOW;
    }
    smos__flow_t *f = &a->hot[index];
    uint32_t incarnation = (f->generation >> 1) + 1;
    if (incarnation == 0x80000000u) incarnation = 1;
    memset(f, 0, sizeof *f);
    memset(&a->cold[index], 0, sizeof a->cold[index]);
    f->generation = incarnation << 1 | 1;
    h->in_use++;
    return index;
}


void smos__arena_give(smos__arena_t *a, uint32_t index)
{
    a->hot[index].class_ = SMOS__CLASS_FREE;
    a->cold[index].next_free = a->header->free_head;
    a->header->free_head = index;
    a->header->in_use--;
}
