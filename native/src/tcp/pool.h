/* pool.h: the assembler's blocks. Two sizes: a page is one large block or eight small ones; all of it O(1).
 *
 * A block's index counts small blocks from the first page, so a large one's is a multiple of 8. Nothing holds an address.
 * Fragmentation: small blocks are taken from pages that are already cut; a cut page is whole again when its last block comes back. At
 * worst every page is held by one small block. */
#ifndef SMOS__POOL_H
#define SMOS__POOL_H

#include <stdbool.h>

#include "tcp/assembler.h"

#define SMOS__BLOCK_LARGE 2048u
#define SMOS__BLOCK_SMALL 256u

/* SMOS__NO_BLOCK if there is none of that size. The block's bytes are undefined. */
uint32_t smos__pool_take(smos__pool_t *, bool large);
void smos__pool_give(smos__pool_t *, uint32_t block);
/* 8-byte aligned if the pool is. */
void *smos__pool_at(const smos__pool_t *, uint32_t block);
uint32_t smos__pool_block_bytes(const smos__pool_t *, uint32_t block);

#endif
