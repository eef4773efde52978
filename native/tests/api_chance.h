/* api_chance.h: traffic and calls of the module API drawn by chance: from a seeded generator in a test, from the input in a fuzzer. What a call returns must be
 * among the errors that its contract names. */
#ifndef SMOS_TEST_API_CHANCE_H
#define SMOS_TEST_API_CHANCE_H

#include <errno.h>

#include "conversation.h"

#define CHANCE_KNOWN 16

typedef struct chance {
    uint32_t (*draw)(void *source); /* any 32 bits */
    void *source;
    smos_shard_t *shard;
    const smos_api_t *api;
    /* what calls choose from, right and wrong ones; each replaced now and then */
    smos_sock_t socks[CHANCE_KNOWN];
    smos_flow_t flows[CHANCE_KNOWN];
    uint32_t events[CHANCE_KNOWN];
    uint64_t timers[CHANCE_KNOWN];
    int budget; /* calls left */
} chance_t;

static inline uint32_t below(chance_t *c, uint32_t n) { return c->draw(c->source) % n; }

/* ---- traffic ---- */

static inline void chance_drop(smos__port_t *p, smos__frame_t *f) { (void)p, (void)f; }
static inline void chance_flush(smos__port_t *p) { (void)p; }
static inline int chance_send(smos__port_t *p, int end, const uint8_t *data, uint32_t length, const smos__frame_t *like)
{
    volatile uint8_t sum = 0;
    (void)p, (void)end, (void)like;
    for (uint32_t i = 0; i < length; i++) sum ^= data[i];
    (void)sum;
    return 0;
}

/* Connections in all their states, bytes out of order and again, frames that are none of theirs. */
static inline talk_t *chance_talk(chance_t *c, int packets)
{
    static const char TEXT[] = "the quick brown fox jumps over the lazy dog 0123456789 abcdefghijklmnopqrstuvwxyz";
    talk_t *t = talk();
    uint32_t next[6][2];
    char text[64];
    t->port.forward = chance_drop;
    t->port.drop = chance_drop;
    t->port.send = chance_send;
    t->port.flush = chance_flush;
    t->port.ends = below(c, 2) ? 2 : 1;
    t->burst = 1 + (int)below(c, SMOS__BURST);
    for (int i = 0; i < 6; i++) next[i][0] = 101, next[i][1] = 501;
    for (int i = 0; i < 3; i++) handshake(t, i);
    while (t->count < packets) {
        int number = (int)below(c, 6), from = (int)below(c, 2);
        uint32_t *seq = &next[number][from], ack = next[number][!from], length = below(c, 40), ahead = below(c, 4) ? 0 : below(c, 60);
        memcpy(text, TEXT + below(c, 20), length);
        text[length] = '\0';
        switch (below(c, 12)) {
        case 0: segment(t, number, from, SMOS__FIN | SMOS__ACK, *seq, ack, text); break;
        case 1: segment(t, number, from, SMOS__RST | SMOS__ACK, *seq, ack, ""); break;
        case 2:
            segment(t, number, 0, SMOS__SYN, 100 + 1000 * below(c, 3), 0, "");
            break;
        case 3: segment(t, number, 1, SMOS__SYN | SMOS__ACK, 500, next[number][0], ""); break;
        case 4: segment(t, number, from, SMOS__ACK, *seq - below(c, 30), ack, text); break; /* again, perhaps otherwise */
        case 5: datagram(t, number, from, length); break;
        case 6: whole_frame(t, (const uint8_t *)"\xff\xff\xff\xff\xff\xff\2\0\0\0\0\1\x08\x06what is this", 26); break;
        case 7: segment(t, 100 + number, from, SMOS__ACK, *seq, ack, text); break; /* of no connection */
        default:
            segment(t, number, from, SMOS__ACK, *seq + ahead, ack, text);
            if (!ahead) *seq += length;
        }
        t->frames[t->count - 1].end = (uint8_t)(t->port.ends == 2 ? from : 0);
        if (!below(c, 40)) t->now_ns += 70000 * MS;
    }
    return t;
}

/* ---- calls ---- */

static inline void chance_handler(void *self, const smos_call_t *call);
static inline int chance_predicate(void *self, const smos_call_t *call);

/* A number that is often right, sometimes next to it, and sometimes none at all. */
static inline uint64_t chance_number(chance_t *c)
{
    static const uint64_t ODD[] = {0, 1, 2, 3, 4, 63, 64, 255, 1400, 65535, INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX};
    return below(c, 3) ? below(c, 8) : ODD[below(c, sizeof ODD / sizeof *ODD)];
}

static inline int chance_side(chance_t *c) { return below(c, 8) ? (int)below(c, 3) : (int)chance_number(c); }

static inline smos_flow_t chance_flow(chance_t *c, const smos_call_t *call)
{
    uint32_t luck = below(c, 8);
    return luck < 4 && call ? call->flow : luck < 5 ? 0 : luck < 7 ? c->flows[below(c, CHANCE_KNOWN)] : c->draw(c->source) | (uint64_t)below(c, 4) << 32;
}

static inline uint32_t chance_event(chance_t *c) { return below(c, 4) ? below(c, SMOS_EVENT_COUNT) : c->events[below(c, CHANCE_KNOWN)]; }

/* The errors that the contract names; others fail. */
static inline void chance_check(const char *what, int64_t status, const int *allowed)
{
    if (status >= 0) return;
    for (; *allowed; allowed++)
        if (status == -*allowed) return;
    fprintf(stderr, "%s returned %lld (%s), which its contract does not name\n", what, (long long)status, strerror((int)-status));
    abort();
}

#define MAY(what, ...) \
    do { \
        static const int allowed[] = {__VA_ARGS__, 0}; \
        chance_check(#what, c->api->what, allowed); \
    } while (0)

static inline void chance_call(chance_t *c, const smos_call_t *call)
{
    smos_engine_t *e = smos_shard_engine(c->shard);
    uint8_t room[64] = "0123456789";
    smos_range_t ranges[4];
    smos_buffer_info_t info;
    smos_flow_info_t flow_info;
    uint64_t value = 0;
    uint8_t *state;
    smos_sock_t sock = c->socks[below(c, CHANCE_KNOWN)], made;
    smos_flow_t flow = chance_flow(c, call);
    int side = chance_side(c);
    uint32_t event = chance_event(c), at = below(c, CHANCE_KNOWN), n = below(c, 64);
    void *arg = (void *)(uintptr_t)below(c, 3);
    switch (below(c, 34)) {
    case 0: MAY(flow_info(e, flow, below(c, 9) ? &flow_info : NULL), EINVAL, ESTALE, EPERM); break;
    case 1: MAY(drop(e), EINVAL, EPERM); break;
    case 2:
        if (!below(c, 4)) MAY(reset(e, flow), ESTALE, EPERM);
        break;
    case 3: MAY(stop(e, flow, side), EINVAL, ESTALE, EPERM, ENOSPC); break;
    case 4: MAY(emit(e, below(c, 9) ? "topic" : NULL, room, n), EINVAL, EPERM, EMSGSIZE, ENOBUFS); break;
    case 5: c->api->log(e, side, below(c, 9) ? "line" : NULL); break;
    case 6:
        made = 0;
        MAY(socket(e, side, &made), EINVAL, ENOSPC);
        if (made) c->socks[at] = made;
        break;
    case 7: MAY(bind(e, sock, below(c, 3) ? below(c, 2) ? "tcp" : "udp port 53" : NULL, below(c, 3) ? NULL : "tcp port ("), EINVAL, EBADF); break;
    case 8:
        if (below(c, 2)) flow = 0;
        MAY(close(e, sock, flow), EBADF, ESTALE, ENOTCONN, EPERM);
        break;
    case 9:
    case 10:
    case 11: MAY(register_handler(e, sock, flow, event, (int)below(c, 4), side, chance_handler, arg), EINVAL, EBADF, ESTALE, ENOTCONN, ENOENT, ENOSPC, EPERM); break;
    case 12: MAY(unregister_handler(e, sock, flow, event, below(c, 2) ? chance_handler : NULL, arg), EBADF, ESTALE, ENOTCONN, ENOENT, EPERM); break;
    case 13: MAY(define_event(e, event, chance_predicate, below(c, 2) ? room : NULL, below(c, 2), &c->events[at]), EINVAL, ENOENT, ENOSPC); break;
    case 14: MAY(alloc_event(e, event, &c->events[at]), EINVAL, ENOENT, ENOSPC); break;
    case 15: MAY(raise_event(e, event), ENOENT, EPERM, ENOSPC); break;
    case 16: MAY(remove_event(e, event), ENOENT); break;
    case 17: MAY(set_option(e, sock, flow, side, 1 + (int)below(c, 5), chance_number(c)), EINVAL, EBADF, ESTALE, ENOTCONN, ENOSPC, EPERM); break;
    case 18: MAY(set_option(e, sock, flow, side, SMOS_OPT_HISTORY, n), EINVAL, EBADF, ESTALE, ENOTCONN, ENOSPC, EPERM); break;
    case 19: MAY(get_option(e, sock, flow, side, (int)chance_number(c), &value), EINVAL, EBADF, ESTALE, ENOTCONN, EPERM); break;
    case 20: MAY(peek(e, sock, flow, side, room, n, below(c, 2) ? &value : NULL), EINVAL, EBADF, ESTALE, ENOTCONN, EPERM); break;
    case 21: MAY(peek_at(e, sock, flow, side, room, n, chance_number(c)), EINVAL, EBADF, ESTALE, ENOTCONN, ENODATA, EPERM); break;
    case 22: MAY(buffered(e, sock, flow, side, ranges, (int)below(c, 5)), EINVAL, EBADF, ESTALE, ENOTCONN, EPERM); break;
    case 23: MAY(buffer_info(e, sock, flow, side, &info), EINVAL, EBADF, ESTALE, ENOTCONN, EPERM); break;
    case 24: MAY(stop_socket(e, sock, flow, side), EINVAL, EBADF, ESTALE, ENOTCONN, ENOSPC, EPERM); break;
    case 25: MAY(set_context(e, sock, flow, arg), EBADF, ESTALE, ENOTCONN, EPERM); break;
    case 26:
        c->api->get_context(e, sock, flow);
        state = c->api->state(e, flow);
        if (state) state[n % 16]++;
        break;
    case 27: MAY(set_timer(e, below(c, 2) ? flow : 0, (int64_t)(chance_number(c) * 100000), (int64_t)below(c, 3) * MS, chance_handler, arg, &c->timers[at]), EINVAL, ESTALE, ENOSPC, EPERM); break;
    case 28: MAY(cancel_timer(e, c->timers[at]), ENOENT); break;
    case 29: MAY(at_burst_end(e, below(c, 3) ? chance_handler : NULL, arg), EINVAL); break;
    case 30: MAY(overwrite(e, side, (uint32_t)chance_number(c), room, n), EINVAL, EPERM, EMSGSIZE, EOPNOTSUPP, ENOSPC); break;
    case 31: MAY(insert(e, (uint32_t)chance_number(c), room, n), EINVAL, EPERM, EMSGSIZE, EOPNOTSUPP, ENOSPC); break;
    case 32: MAY(remove(e, (uint32_t)chance_number(c), n), EINVAL, EPERM, EMSGSIZE, EOPNOTSUPP, ENOSPC); break;
    default: {
        smos_injection_t in = {.to = (uint8_t)(below(c, 9) ? side & 1 : 7), .tcp_flags = (uint8_t)(c->draw(c->source) & 0x3f), .set_seq = !below(c, 4), .seq = c->draw(c->source), .payload = room, .length = n};
        MAY(inject(e, flow, &in), EINVAL, ESTALE, EMSGSIZE, EOPNOTSUPP, ENOTSUP, ENOSPC, EPERM);
    }
    }
}

static chance_t *chancing; /* the one under way: handlers find it here */

static inline void chance_act(const smos_call_t *call)
{
    chance_t *c = chancing;
    volatile uint8_t sum = 0;
    uint64_t copies = call->event == SMOS_ANOMALY ? 2 : 1;
    for (uint64_t i = 0; call->data && i < call->length * copies; i++) sum ^= call->data[i];
    if (call->packet && call->packet->payload)
        for (uint32_t i = 0; i < call->packet->payload_captured; i++) sum ^= call->packet->payload[i];
    (void)sum;
    if (call->flow && !below(c, 8)) c->flows[below(c, CHANCE_KNOWN)] = call->flow;
    for (uint32_t n = below(c, 4); n && c->budget > 0; n--, c->budget--) chance_call(c, call);
}

static inline void chance_handler(void *self, const smos_call_t *call)
{
    (void)self;
    chance_act(call);
}

static inline int chance_predicate(void *self, const smos_call_t *call)
{
    (void)self;
    chance_act(call);
    return (int)below(chancing, 2);
}

/* Two modules that listen to everything and do anything, over traffic of all kinds. */
static inline void chance_run(chance_t *c, int packets, int calls)
{
    talk_t *t = chance_talk(c, packets);
    smos_config_t config;
    char error[SMOS_ERROR_SIZE];
    smos_config_default(&config);
    CHECK_EQ(smos_config_memory(&config, 16 << 20), 0);
    config.checksums = 1;
    config.midstream = (uint8_t)below(c, 2);
    config.detail = 7;
    config.publish = 15;
    if (below(c, 2)) config.max_flows = 4;
    config.hash_key[0] = 1;
    smos_shard_t *s = c->shard = smos_shard_create(&config, error);
    CHECK(s != NULL);
    s->port = &t->port;
    c->api = smos_shard_api();
    chancing = c;
    for (int i = 0; i < CHANCE_KNOWN; i++) {
        c->socks[i] = (smos_sock_t)(i < 8 ? i / 2 : i);
        c->events[i] = SMOS_USER_EVENT + (uint32_t)i;
        c->flows[i] = c->timers[i] = 0;
    }
    static const char *const NAMES[] = {"first", "second"};
    for (int m = 0; m < 2; m++) {
        smos_module_t module = {SMOS_MODULE_HEADER, .name = NAMES[m], .state_size = 16};
        smos_box_t *box = smos_box_create(s, &module, "1", NULL, NULL, error), *old = NULL;
        CHECK(box != NULL);
        smos_shard_use(s, box);
        c->budget = 64;
        for (uint32_t event = 0; event < SMOS_EVENT_COUNT; event++) CHECK_EQ(c->api->register_handler(smos_shard_engine(s), 0, 0, event, 0, SMOS_BOTH, chance_handler, NULL), 0);
        while (c->budget-- > 0) chance_call(c, NULL);
        smos_shard_use(s, NULL);
        int status = smos_shard_commit(s, box, &old);
        if (status) smos_box_free(box);
        CHECK(!status || status == -ENOSPC);
    }
    c->budget = calls;
    const uint8_t *events;
    uint32_t bits;
    do {
        bits = smos_shard_run(s, 1000000000);
        CHECK(!(bits & SMOS_RUN_FAILED));
        if (bits & SMOS_RUN_EVENTS) smos_shard_take_events(s, &events);
    } while (!(bits & SMOS_RUN_END));
    if (below(c, 2)) {
        smos_box_t *old = NULL;
        if (!smos_shard_remove(s, "first", &old)) {
            CHECK(smos_box_idle(old));
            smos_box_free(old);
        }
    }
    do {
        bits = smos_shard_finish(s, SMOS_END_CAPTURE, 0);
        if (bits & SMOS_RUN_EVENTS) smos_shard_take_events(s, &events);
    } while (!(bits & SMOS_RUN_END));
    CHECK_EQ(smos__pool_used(s->arena.pool), 0);
    CHECK_EQ(s->arena.header->in_use, 0);
    smos_shard_destroy(s);
    free(t);
}

#endif
