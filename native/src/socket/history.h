/* history.h: delivered bytes that sockets asked to keep readable, and reading them. Stored in blocks of the same pool as out-of-order
 * bytes; the lists lie in arrays of their own, by slot, reserved when first needed, so that flows without history cost nothing. */
#ifndef SMOS__HISTORY_H
#define SMOS__HISTORY_H

#include "flow/arena.h"

typedef struct smos__history {
    smos__assembler_t *kept; /* [2 * slot + receiving side]; NULL: nobody ever asked */
    uint32_t capacity;       /* slots */
    uint64_t given_up;       /* bytes that the pool had no room for */
} smos__history_t;

void smos__history_free(smos__history_t *);
/* Keeps [offset, offset + length) and the bytes before, `most` in all. `start` is the oldest byte readable afterwards. Bytes that find no
 * room are given up with all before them. -ENOMEM: no address space. */
int smos__history_keep(smos__history_t *, smos__arena_t *, uint32_t flow, int receiver, uint64_t offset, const uint8_t *data, uint32_t length, uint32_t most);
/* Nobody asks for more than `most` of the bytes before `next` any longer: what is older goes. */
void smos__history_limit(smos__history_t *, smos__arena_t *, uint32_t flow, int receiver, uint64_t next, uint32_t most);
void smos__history_forget(smos__history_t *, smos__arena_t *, uint32_t flow); /* the flow ends */
const smos__assembler_t *smos__history_of(const smos__history_t *, uint32_t flow, int receiver); /* NULL: none */

#endif
