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
    if (length) memcpy(p->data + p->used, data, length);
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

/* Length of the UTF-8 character (RFC 3629) at text, which has `left` bytes; 0 if there is none. */
static inline uint32_t smos__utf8_length(const uint8_t *text, uint32_t left)
{
    uint8_t c = text[0], low = 0x80, high = 0xbf; /* of the second byte */
    uint32_t n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    if (n < 2) return n;
    if (c == 0xe0) low = 0xa0;  /* no longer than needed */
    if (c == 0xed) high = 0x9f; /* no surrogates */
    if (c == 0xf0) low = 0x90;
    if (c == 0xf4) high = 0x8f; /* none beyond U+10FFFF */
    if (left < n || text[1] < low || text[1] > high) return 0;
    for (uint32_t i = 2; i < n; i++)
        if (text[i] < 0x80 || text[i] > 0xbf) return 0;
    return n;
}

/* Text of unknown origin as valid UTF-8: what is none becomes U+FFFD, byte by byte. At most `most` bytes (up to 65,535), whole characters. */
static inline void smos__pack_unsafe_text(smos__packer_t *p, const char *text, uint32_t length, uint32_t most)
{
    const uint8_t *at = (const uint8_t *)text, *end = at + length;
    uint32_t head = p->used;
    smos__pack_head(p, 0xda, 0, 2);
    uint32_t begin = p->used;
    while (at < end && !p->full) {
        uint32_t n = smos__utf8_length(at, (uint32_t)(end - at)), out = n ? n : 3;
        if (p->used - begin + out > most) break;
        smos__pack_raw(p, n ? (const void *)at : "\xef\xbf\xbd", out);
        at += n ? n : 1;
    }
    if (p->full) return;
    uint32_t written = p->used - begin;
    p->data[head + 1] = (uint8_t)(written >> 8);
    p->data[head + 2] = (uint8_t)written;
}

static inline void smos__pack_str(smos__packer_t *p, const char *text) { smos__pack_text(p, text, (uint32_t)strlen(text)); }

static inline void smos__pack_bin(smos__packer_t *p, const void *data, uint32_t length)
{
    smos__pack_head(p, 0xc6, length, 4);
    smos__pack_raw(p, data, length);
}

#endif
