/* msgpack.h: the six msgpack forms that events need, written into a bounded buffer. A write that does not fit sets `full` and is dropped. */
#ifndef SMOS__MSGPACK_H
#define SMOS__MSGPACK_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef struct smos__packer {
    uint8_t *data;
    uint32_t used, size;
    bool full;
} smos__packer_t;

static inline void smos__pack_raw(smos__packer_t *p, const void *data, uint32_t length)
{
    if (p->full || length > p->size - p->used) {
        p->full = true;
        return;
    }
    memcpy(p->data + p->used, data, length);
    p->used += length;
}

static inline void smos__pack_head(smos__packer_t *p, uint8_t code, uint64_t value, uint32_t bytes)
{
    uint8_t head[9] = {code};
    for (uint32_t i = 0; i < bytes; i++) head[1 + i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
    smos__pack_raw(p, head, 1 + bytes);
}

static inline void smos__pack_map(smos__packer_t *p, uint32_t pairs) { smos__pack_head(p, 0xde, pairs, 2); }
static inline void smos__pack_uint(smos__packer_t *p, uint64_t v) { smos__pack_head(p, 0xcf, v, 8); }
static inline void smos__pack_int(smos__packer_t *p, int64_t v) { smos__pack_head(p, 0xd3, (uint64_t)v, 8); }
static inline void smos__pack_nil(smos__packer_t *p) { smos__pack_head(p, 0xc0, 0, 0); }

static inline void smos__pack_text(smos__packer_t *p, const char *text, uint32_t length)
{
    smos__pack_head(p, 0xda, length > 65535 ? 65535 : length, 2);
    smos__pack_raw(p, text, length > 65535 ? 65535 : length);
}

static inline void smos__pack_str(smos__packer_t *p, const char *text) { smos__pack_text(p, text, (uint32_t)strlen(text)); }

static inline void smos__pack_bin(smos__packer_t *p, const void *data, uint32_t length)
{
    smos__pack_head(p, 0xc6, length, 4);
    smos__pack_raw(p, data, length);
}

#endif
