/* Options of streams, and reading them, as modules call it. `side` is the receiving end: its stream is sent by the other one. */
#include <errno.h>
#include <string.h>

#include "shard/api.h"


typedef struct option {
    int side, option;
    uint64_t value;
} option_t;


static int change(smos__wants_t *w, const void *what)
{
    const option_t *o = what;
    return smos__wants_option(w, o->side, o->option, o->value);
}


/* History begins here and now: what was delivered before cannot be read. */
static int begin_history(const smos__caller_t *c, const smos__stream_options_t *before)
{
    const smos__flow_t *f = &c->shard->arena.hot[c->flow];
    const smos__wants_t *now = smos__events_wants(&c->shard->events, c->socket, c->flow);
    for (int side = 0; now && side < 2; side++) {
        if (before->history[side] || !now->options.history[side]) continue;
        smos__watch_t *w = smos__events_watch(&c->shard->events, c->socket, c->flow);
        if (!w) return -ENOMEM;
        w->read[side] = f->end[!side].offset;
    }
    return 0;
}


/* What the flow's sockets ask for together. */
static void limit_history(const smos__caller_t *c)
{
    smos_shard_t *s = c->shard;
    const smos__flow_t *f = &s->arena.hot[c->flow];
    for (int side = 0; side < 2; side++)
        smos__history_limit(&s->history, &s->arena, c->flow, side, f->end[!side].offset, smos__set_of(s, f)->options.history[side]);
}


int smos__api_set_option(smos_engine_t *engine, smos_sock_t sock, smos_flow_t flow, int side, int option, uint64_t value)
{
    smos__caller_t c;
    option_t o = {side, option, value};
    int status = smos__caller_flow(&c, engine, sock, flow);
    if (!status && option == SMOS_OPT_FRAMES) {
        if (flow || c.socket->type != SMOS_RAW || value > 1) return smos__failed(&c, "set_option", -EINVAL);
        c.socket->frames = value;
        return 0;
    }
    if (!status && option == SMOS_OPT_DATAGRAMS) {
        if (flow || c.socket->type != SMOS_STREAM || value > 1) return smos__failed(&c, "set_option", -EINVAL);
        if (c.socket->slot >= 0) c.shard->events.datagrams += (int)value - c.socket->datagrams;
        c.socket->datagrams = value;
        return 0;
    }
    const smos__wants_t *wants = status ? NULL : smos__events_wants(&c.shard->events, c.socket, c.flow);
    if (!status && !wants) status = -ENOTCONN;
    if (status) return smos__failed(&c, "set_option", status);
    smos__stream_options_t before = wants->options;
    status = smos__events_change(&c.shard->events, c.socket, c.flow, change, &o);
    if (!status && flow) status = begin_history(&c, &before);
    if (!status && flow && option == SMOS_OPT_HISTORY) limit_history(&c);
    return smos__failed(&c, "set_option", status);
}


int smos__api_get_option(smos_engine_t *engine, smos_sock_t sock, smos_flow_t flow, int side, int option, uint64_t *value)
{
    smos__caller_t c;
    int status = smos__caller_flow(&c, engine, sock, flow);
    if (!status && (!value || side < 0 || side >= SMOS_BOTH)) status = -EINVAL;
    const smos__wants_t *wants = status ? NULL : smos__events_wants(&c.shard->events, c.socket, c.flow);
    if (!status && !wants) status = -ENOTCONN;
    if (status) return smos__failed(&c, "get_option", status);
    const smos__stream_options_t *o = &wants->options;
    switch (option) {
    case SMOS_OPT_HISTORY: *value = o->history[side]; break;
    case SMOS_OPT_BUFFER: *value = o->buffer[side] == SMOS__DEFAULT ? c.shard->tcp.flow_buffer : o->buffer[side]; break;
    case SMOS_OPT_OVERLAP: *value = o->overlap[side] == SMOS__DEFAULT_POLICY ? c.shard->tcp.overlap_policy : o->overlap[side]; break;
    case SMOS_OPT_FRAMES: *value = c.socket->frames; break;
    case SMOS_OPT_DATAGRAMS: *value = c.socket->datagrams; break;
    default: return smos__failed(&c, "get_option", -EINVAL);
    }
    return 0;
}


/* ---- reading ---- */

static int reader(smos__caller_t *c, smos_engine_t *engine, smos_sock_t sock, smos_flow_t flow, int side)
{
    int status = smos__caller_watching(c, engine, sock, flow);
    if (status) return status;
    return side == SMOS_CLIENT || side == SMOS_SERVER ? 0 : -EINVAL;
}


int64_t smos__api_peek(smos_engine_t *engine, smos_sock_t sock, smos_flow_t flow, int side, void *buffer, size_t length, uint64_t *lost)
{
    smos__caller_t c;
    int status = reader(&c, engine, sock, flow, side);
    if (lost) *lost = 0;
    if (!status && ((!buffer && length) || length > INT32_MAX)) status = -EINVAL;
    smos__watch_t *w = status ? NULL : smos__events_watch(&c.shard->events, c.socket, c.flow);
    if (!status && !w) status = -ENOMEM;
    if (status) return smos__failed(&c, "peek", status);
    const smos__assembler_t *kept = smos__history_of(&c.shard->history, c.flow, side);
    const smos__pool_t *pool = c.shard->arena.pool;
    uint64_t end = c.shard->arena.hot[c.flow].end[!side].offset, from = w->read[side];
    if (from >= end) return 0;
    uint64_t next = kept ? smos__assembler_next(kept, pool, from) : UINT64_MAX;
    if (next > end) next = end;
    if (lost) *lost = next - from;
    uint32_t n = next < end && length ? smos__assembler_read(kept, pool, next, buffer, (uint32_t)length) : 0;
    w->read[side] = next + n;
    return n;
}


/* Where the byte at `offset` may lie: among those delivered, or waiting behind a hole. */
static const smos__assembler_t *place_of(const smos__caller_t *c, int side, uint64_t offset)
{
    if (offset < c->shard->arena.hot[c->flow].end[!side].offset) return smos__history_of(&c->shard->history, c->flow, side);
    return &c->shard->arena.cold[c->flow].end[!side].assembler;
}


int64_t smos__api_peek_at(smos_engine_t *engine, smos_sock_t sock, smos_flow_t flow, int side, void *buffer, size_t length, uint64_t offset)
{
    smos__caller_t c;
    int status = reader(&c, engine, sock, flow, side);
    if (!status && (!buffer || length > INT32_MAX)) status = -EINVAL;
    if (status) return smos__failed(&c, "peek_at", status);
    const smos__assembler_t *at = place_of(&c, side, offset);
    uint32_t n = at ? smos__assembler_read(at, c.shard->arena.pool, offset, buffer, (uint32_t)length) : 0;
    return n || !length ? (int64_t)n : smos__failed(&c, "peek_at", -ENODATA);
}


int smos__api_buffered(smos_engine_t *engine, smos_sock_t sock, smos_flow_t flow, int side, smos_range_t *ranges, int max)
{
    smos__caller_t c;
    int status = reader(&c, engine, sock, flow, side);
    if (!status && (max < 0 || (!ranges && max))) status = -EINVAL;
    if (status) return smos__failed(&c, "buffered", status);
    _Static_assert(sizeof(smos_range_t) == sizeof(uint64_t[2]), "a range is a pair");
    const smos__assembler_t *kept = smos__history_of(&c.shard->history, c.flow, side);
    uint32_t n = kept ? smos__assembler_ranges(kept, c.shard->arena.pool, (uint64_t (*)[2])ranges, (uint32_t)max) : 0;
    uint32_t waiting = smos__assembler_ranges(&c.shard->arena.cold[c.flow].end[!side].assembler, c.shard->arena.pool, (uint64_t (*)[2])(ranges + n), (uint32_t)max - n);
    uint64_t next = c.shard->arena.hot[c.flow].end[!side].offset;
    for (smos_range_t *r = ranges + n, *end = r + waiting; r < end; r++) { /* what is being delivered now is in both */
        if (r->end <= next) continue;
        ranges[n++] = (smos_range_t){r->start < next ? next : r->start, r->end};
    }
    return (int)n;
}


int smos__api_buffer_info(smos_engine_t *engine, smos_sock_t sock, smos_flow_t flow, int side, smos_buffer_info_t *out)
{
    smos__caller_t c;
    int status = reader(&c, engine, sock, flow, side);
    if (!status && !out) status = -EINVAL;
    if (status) return smos__failed(&c, "buffer_info", status);
    const smos__endpoint_t *e = &c.shard->arena.hot[c.flow].end[!side];
    const smos__assembler_t *waiting = &c.shard->arena.cold[c.flow].end[!side].assembler, *kept = smos__history_of(&c.shard->history, c.flow, side);
    uint64_t last = waiting->bytes ? smos__assembler_last(waiting, c.shard->arena.pool) : e->offset;
    *out = (smos_buffer_info_t){.init_seq = e->isn + 1, .out_of_order = waiting->bytes, .history_start = e->offset, .next = e->offset, .last = last};
    if (kept) out->history_start = smos__assembler_next(kept, c.shard->arena.pool, 0);
    out->read = c.socket->watches ? c.socket->watches[c.flow].read[side] : 0;
    return 0;
}
