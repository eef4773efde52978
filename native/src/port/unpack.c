#include "port/unpack.h"

#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#define ZSTD_HEAD 5 /* bytes of a frame that tell how long its header is */

struct smos__unpack {
    ZSTD_DStream *zstd; /* NULL: gzip */
    size_t wanted;      /* of zstd data: to the end of the block under way */
    z_stream gzip;
    int damaged; /* nothing more can be read: problem was said */
    int inside; /* a member or frame has begun and not ended */
    int over;   /* what follows the last gzip member is padding; ignored, as gzip does */
};

static int is_gzip(const uint8_t *head, size_t bytes)
{
    return bytes >= 2 && head[0] == 0x1f && head[1] == 0x8b;
}

int smos__unpack_recognizes(const uint8_t *head, size_t bytes)
{
    if (is_gzip(head, bytes)) return 1;
    if (bytes < 4) return 0;
    return (head[0] == 0x28 && head[1] == 0xb5 && head[2] == 0x2f && head[3] == 0xfd)
        || ((head[0] & 0xf0) == 0x50 && head[1] == 0x2a && head[2] == 0x4d && head[3] == 0x18); /* a skippable frame */
}

smos__unpack_t *smos__unpack_open(const uint8_t *head, size_t bytes)
{
    smos__unpack_t *u = calloc(1, sizeof *u);
    if (u == NULL) return NULL;
    u->inside = 1;
    u->wanted = ZSTD_HEAD;
    int ready = is_gzip(head, bytes) ? inflateInit2(&u->gzip, 15 + 16) == Z_OK : (u->zstd = ZSTD_createDStream()) != NULL;
    if (ready) return u;
    free(u);
    return NULL;
}

void smos__unpack_close(smos__unpack_t *u)
{
    if (u == NULL) return;
    if (u->zstd != NULL) ZSTD_freeDStream(u->zstd);
    else inflateEnd(&u->gzip);
    free(u);
}

/* A block at a time, as long as the last call said it is: what a damaged block takes with it is then the same however much room there is. */
static long unpack_zstd(smos__unpack_t *u, const uint8_t *in, size_t *in_at, size_t in_end, uint8_t *out, size_t room, char *problem, size_t problem_size)
{
    ZSTD_inBuffer from = { in, in_end, *in_at };
    ZSTD_outBuffer to = { out, room, 0 };
    do {
        if (from.pos == in_end && !u->inside) break; /* asking on would begin a frame that is not there */
        size_t before = from.pos;
        from.size = in_end - before < u->wanted ? in_end : before + u->wanted;
        size_t rest = ZSTD_decompressStream(u->zstd, &to, &from);
        if (ZSTD_isError(rest)) {
            snprintf(problem, problem_size, "holds damaged zstd data: %s", ZSTD_getErrorName(rest));
            return -1;
        }
        u->inside = rest != 0;
        u->wanted = rest ? rest : ZSTD_HEAD;
        if (from.pos != before || to.pos != 0) continue;
        if (from.size == in_end) break;
        u->wanted = in_end - before; /* it said less than it needs */
    } while (to.pos == 0);
    *in_at = from.pos;
    return (long)to.pos;
}

static long unpack_gzip(smos__unpack_t *u, const uint8_t *in, size_t *in_at, size_t in_end, uint8_t *out, size_t room, char *problem, size_t problem_size)
{
    z_stream *z = &u->gzip;
    z->next_out = out;
    z->avail_out = (uInt)room;
    while (z->avail_out == room && !u->over) {
        if (!u->inside) {
            if (*in_at == in_end) break;
            u->over = in[*in_at] != 0x1f;
            if (u->over) break;
            inflateReset(z);
            u->inside = 1;
        }
        size_t before = *in_at;
        z->next_in = (Bytef *)(uintptr_t)(in + before); /* zlib's own prototype lacks the const */
        z->avail_in = (uInt)(in_end - before);
        int result = inflate(z, Z_NO_FLUSH);
        *in_at = in_end - z->avail_in;
        if (result == Z_STREAM_END) u->inside = 0;
        else if (result != Z_OK && result != Z_BUF_ERROR) {
            if (z->avail_out != room) break; /* what came before the damage first; the next call finds it again */
            snprintf(problem, problem_size, "holds damaged gzip data: %s", z->msg != NULL ? z->msg : zError(result));
            return -1;
        }
        if (*in_at == in_end && z->avail_out == room) break;
    }
    if (u->over) *in_at = in_end;
    return (long)(room - z->avail_out);
}

long smos__unpack(smos__unpack_t *u, const uint8_t *in, size_t *in_at, size_t in_end, uint8_t *out, size_t room, char *problem, size_t problem_size)
{
    if (u->damaged) return -1; /* asked again, the library might go on in what it took for something else */
    long made = (u->zstd != NULL ? unpack_zstd : unpack_gzip)(u, in, in_at, in_end, out, room, problem, problem_size);
    u->damaged = made < 0;
    return made;
}

int smos__unpack_complete(const smos__unpack_t *u)
{
    return !u->inside;
}

const char *smos__unpack_name(const smos__unpack_t *u)
{
    return u->zstd != NULL ? "zstd" : "gzip";
}
