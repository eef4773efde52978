/* Every function of the module API with null, stale, foreign and out-of-range arguments, at every place from which it can be called: none crashes, each returns the
 * errno that its contract names. The functions are counted off the table: one without a probe here fails the test. */
#include <errno.h>

#include "conversation.h"

typedef enum place { OUTSIDE, INIT, AT_SENDER, AT_RECEIVER, IN_DATA, IN_END, IN_ORPHAN, IN_RAW, IN_FRAME, IN_TIMER, IN_BURST, IN_PREDICATE, AFTER, PLACES } place_t;
static const char *const PLACE[] = {"outside", "init", "sender", "receiver", "data", "end", "orphan", "raw", "frame", "timer", "burst", "predicate", "after"};

static const smos_api_t *api;
static smos_engine_t *engine;
static place_t at;
static int probed[PLACES];
static smos_sock_t raw_sock, spare, closed;
static smos_flow_t good, stale, unwatched, alive; /* `good`: the flow under the hand or one that lives, 0 if there is none */
static uint32_t own_event, outcome, removed;
static uint64_t foreign_timer;

#define GIVES(call, expected) gives(__LINE__, #call, (long long)(call), (long long)(expected))

static void gives(int line, const char *call, long long got, long long expected)
{
    if (got == expected) return;
    fprintf(stderr, "%s:%d: in %s: %s is %lld, expected %lld\n", __FILE__, line, PLACE[at], call, got, expected);
    exit(1);
}

static bool nobody(void) { return at == OUTSIDE || at == AFTER; }
static bool in_packet(void) { return at == AT_SENDER || at == AT_RECEIVER || at == IN_DATA || at == IN_PREDICATE; }

static const smos_sock_t BAD_SOCKS[] = {61, 63, 64, 255, 256, 0x80000000, UINT32_MAX};
static const uint32_t BAD_EVENTS[] = {SMOS_EVENT_COUNT, 63, SMOS_USER_EVENT + 16384, 0x80000000, UINT32_MAX};
static const int BAD_SIDES[] = {-1, 3, 100, INT32_MIN, INT32_MAX};

static void nothing(void *self, const smos_call_t *call) { (void)self, (void)call; }
static int no(void *self, const smos_call_t *call) { return (void)self, (void)call, 0; }

/* ---- what many functions have in common ---- */

typedef int64_t (*with_flow_t)(smos_engine_t *, smos_sock_t, smos_flow_t);

/* False: nothing more of it can be tried here. `outsider`: what a flow gives that the socket does not watch. */
static bool common(with_flow_t call, int outsider)
{
    GIVES(call(NULL, 0, 0), -EINVAL);
    if (nobody()) return GIVES(call(engine, 0, 1), -EPERM), false;
    for (size_t i = 0; i < sizeof BAD_SOCKS / sizeof *BAD_SOCKS; i++) {
        GIVES(call(engine, BAD_SOCKS[i], 0), -EBADF);
        GIVES(call(engine, BAD_SOCKS[i], 5), -EBADF);
    }
    GIVES(call(engine, closed, 0), -EBADF);
    if (at == INIT) return GIVES(call(engine, 0, 5), -EPERM), false;
    const smos_flow_t gone[] = {stale, alive ^ UINT64_C(1) << 33, UINT64_MAX, 1, UINT32_MAX};
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) GIVES(call(engine, 0, gone[i]), -ESTALE);
    if (outsider) GIVES(call(engine, 0, unwatched), outsider);
    return true;
}

/* ---- one probe for each function ---- */

static void probe_flow_info(void)
{
    smos_flow_info_t info;
    GIVES(api->flow_info(NULL, 1, &info), -EINVAL);
    GIVES(api->flow_info(engine, 1, NULL), -EINVAL);
    if (at == INIT) {
        GIVES(api->flow_info(engine, 1, &info), -EPERM);
        return;
    }
    GIVES(api->flow_info(engine, 0, &info), -ESTALE);
    GIVES(api->flow_info(engine, UINT64_MAX, &info), -ESTALE);
    if (stale) GIVES(api->flow_info(engine, stale, &info), -ESTALE);
    if (good) GIVES(api->flow_info(engine, good, &info), 0);
}

static void probe_drop(void)
{
    GIVES(api->drop(NULL), -EINVAL);
    if (at == INIT) GIVES(api->drop(engine), -EPERM);
    if (nobody() || at == IN_END || at == IN_TIMER || at == IN_BURST) GIVES(api->drop(engine), -EINVAL);
}

static void probe_reset(void)
{
    GIVES(api->reset(NULL, 1), -EINVAL);
    if (at == INIT) {
        GIVES(api->reset(engine, 1), -EPERM);
        return;
    }
    GIVES(api->reset(engine, 0), -ESTALE);
    GIVES(api->reset(engine, UINT64_MAX), -ESTALE);
    if (stale) GIVES(api->reset(engine, stale), -ESTALE);
}

static void probe_stop(void)
{
    GIVES(api->stop(NULL, 1, 0), -EINVAL);
    for (size_t i = 0; i < 5; i++) GIVES(api->stop(engine, good, BAD_SIDES[i]), -EINVAL);
    if (at == INIT) {
        GIVES(api->stop(engine, 1, 0), -EPERM);
        return;
    }
    GIVES(api->stop(engine, 0, 0), -ESTALE);
    GIVES(api->stop(engine, UINT64_MAX, SMOS_BOTH), -ESTALE);
    if (!nobody()) GIVES(api->stop(engine, unwatched, SMOS_BOTH), 0); /* nothing of it comes anyway */
}

static void probe_emit(void)
{
    static char big[65537], topic[66];
    memset(topic, 'x', 65);
    GIVES(api->emit(NULL, "t", "x", 1), -EINVAL);
    GIVES(api->emit(engine, NULL, "x", 1), -EINVAL);
    GIVES(api->emit(engine, "t", NULL, 1), -EINVAL);
    if (at == INIT) {
        GIVES(api->emit(engine, "t", "x", 1), -EPERM);
        return;
    }
    GIVES(api->emit(engine, topic, "x", 1), -EMSGSIZE);
    GIVES(api->emit(engine, "t", big, sizeof big), -EMSGSIZE);
    GIVES(api->emit(engine, "t", big, SIZE_MAX), -EMSGSIZE);
    GIVES(api->emit(engine, "\xff\xfe", "\xff", 1), nobody() ? -EINVAL : 0);
    GIVES(api->emit(engine, "t", NULL, 0), nobody() ? -EINVAL : 0);
}

static void probe_log(void)
{
    static char big[10000];
    memset(big, 'x', sizeof big - 1);
    api->log(NULL, 0, "x");
    api->log(engine, 0, NULL);
    api->log(engine, INT32_MIN, "\xff\xfe\x80");
    api->log(engine, INT32_MAX, big);
}

static void probe_now_ns(void) { GIVES(api->now_ns(NULL), 0); }
static void probe_flow_count(void) { GIVES(api->flow_count(NULL), 0); }

static void probe_anomaly_name(void)
{
    CHECK_STR(api->anomaly_name(smos_anomaly_count()), "unknown");
    CHECK_STR(api->anomaly_name(UINT32_MAX), "unknown");
}

static void probe_state_name(void)
{
    CHECK_STR(api->state_name(11), "unknown");
    CHECK_STR(api->state_name(UINT32_MAX), "unknown");
}

static void probe_param(void)
{
    CHECK(api->param(NULL, NULL, "x") == NULL);
    CHECK(api->param(engine, NULL, NULL) == NULL);
    CHECK(api->param(engine, (void *)(uintptr_t)1, "none") == NULL);
}

static void probe_last_error(void)
{
    CHECK_STR(api->last_error(NULL), "");
    if (nobody()) CHECK_STR(api->last_error(engine), "");
    CHECK(api->last_error(engine) != NULL);
}

static void probe_socket(void)
{
    smos_sock_t made;
    GIVES(api->socket(NULL, SMOS_STREAM, &made), -EINVAL);
    if (nobody()) {
        GIVES(api->socket(engine, SMOS_STREAM, &made), -EPERM);
        return;
    }
    GIVES(api->socket(engine, SMOS_STREAM, NULL), -EINVAL);
    for (size_t i = 0; i < 5; i++) GIVES(api->socket(engine, BAD_SIDES[i], &made), -EINVAL);
    GIVES(api->socket(engine, 0, &made), -EINVAL);
    smos_sock_t many[SMOS_MAX_MODULES];
    int n = 0, status;
    while (n < SMOS_MAX_MODULES && !(status = api->socket(engine, n & 1 ? SMOS_RAW : SMOS_STREAM, &many[n]))) n++;
    GIVES(status, -ENOSPC);
    CHECK(strstr(api->last_error(engine), "socket: ") != NULL);
    while (n--) GIVES(api->close(engine, many[n], 0), 0);
    GIVES(api->close(engine, many[0], 0), -EBADF);
}

static int64_t do_bind(smos_engine_t *e, smos_sock_t sock, smos_flow_t flow) { return (void)flow, api->bind(e, sock, "tcp", NULL); }

static void probe_bind(void)
{
    GIVES(do_bind(NULL, 0, 0), -EINVAL);
    if (nobody()) {
        GIVES(do_bind(engine, 0, 0), -EPERM);
        return;
    }
    for (size_t i = 0; i < sizeof BAD_SOCKS / sizeof *BAD_SOCKS; i++) GIVES(do_bind(engine, BAD_SOCKS[i], 0), -EBADF);
    GIVES(do_bind(engine, closed, 0), -EBADF);
    GIVES(api->bind(engine, spare, "tcp port (", NULL), -EINVAL);
    GIVES(api->bind(engine, spare, NULL, "no such thing"), -EINVAL);
    GIVES(api->bind(engine, spare, "\xff\xfe", NULL), -EINVAL);
    GIVES(api->bind(engine, spare, NULL, NULL), 0);
    GIVES(api->bind(engine, spare, "", ""), 0);
    GIVES(api->bind(engine, spare, "udp port 9", "udp"), 0);
}

static int64_t do_close(smos_engine_t *e, smos_sock_t sock, smos_flow_t flow) { return api->close(e, sock, flow); }

static void probe_close(void)
{
    if (!common(do_close, -ENOTCONN)) return;
    GIVES(api->close(engine, 0, 0), -EPERM);
    if (good) GIVES(api->close(engine, raw_sock, good), -ENOTCONN);
}

static int64_t do_register(smos_engine_t *e, smos_sock_t sock, smos_flow_t flow) { return api->register_handler(e, sock, flow, SMOS_GAP, 0, SMOS_BOTH, nothing, NULL); }

static void probe_register_handler(void)
{
    bool flows = common(do_register, -ENOTCONN);
    if (nobody()) return;
    const smos_flow_t where[] = {0, flows ? good : 0};
    for (int k = 0; k < 2; k++) {
        smos_flow_t f = where[k];
        for (size_t i = 0; i < 5; i++) {
            GIVES(api->register_handler(engine, 0, f, SMOS_PKT_IN, 0, BAD_SIDES[i], nothing, NULL), -EINVAL);
            GIVES(api->register_handler(engine, 0, f, SMOS_PKT_IN, BAD_SIDES[i] == 3 ? 4 : BAD_SIDES[i], SMOS_BOTH, nothing, NULL), -EINVAL);
            GIVES(api->register_handler(engine, 0, f, BAD_EVENTS[i], 0, SMOS_BOTH, nothing, NULL), -ENOENT);
        }
        GIVES(api->register_handler(engine, 0, f, removed, 0, SMOS_BOTH, nothing, NULL), -ENOENT);
        GIVES(api->register_handler(engine, 0, f, SMOS_PKT_IN, 0, SMOS_BOTH, NULL, NULL), -EINVAL);
        GIVES(api->register_handler(engine, 0, f, SMOS_NEW_DATA, SMOS_SENDER, SMOS_BOTH, nothing, NULL), -EINVAL); /* it has no hook */
        GIVES(api->register_handler(engine, 0, f, SMOS_GAP, 0, SMOS_BOTH, nothing, NULL), 0);
        GIVES(api->register_handler(engine, 0, f, SMOS_GAP, 0, SMOS_BOTH, nothing, NULL), 0); /* the very same */
        GIVES(api->unregister_handler(engine, 0, f, SMOS_GAP, nothing, NULL), 0);
    }
    uintptr_t n = 0;
    int status;
    while (!(status = api->register_handler(engine, spare, 0, SMOS_GAP, 0, SMOS_BOTH, nothing, (void *)n)) && n < 100) n++;
    GIVES(status, -ENOSPC);
    GIVES(n, 64);
    GIVES(api->unregister_handler(engine, spare, 0, SMOS_GAP, NULL, NULL), 0);
}

static int64_t do_unregister(smos_engine_t *e, smos_sock_t sock, smos_flow_t flow) { return api->unregister_handler(e, sock, flow, SMOS_GAP, nothing, NULL); }

static void probe_unregister_handler(void)
{
    common(do_unregister, -ENOTCONN);
    if (nobody()) return;
    GIVES(api->unregister_handler(engine, 0, 0, SMOS_GAP, nothing, NULL), -ENOENT);
    for (size_t i = 0; i < 5; i++) GIVES(api->unregister_handler(engine, 0, 0, BAD_EVENTS[i], NULL, NULL), -ENOENT);
}

static void probe_define_event(void)
{
    static const char big[65536];
    uint32_t event;
    GIVES(api->define_event(NULL, SMOS_PKT_IN, no, NULL, 0, &event), -EINVAL);
    if (nobody()) {
        GIVES(api->define_event(engine, SMOS_PKT_IN, no, NULL, 0, &event), -EPERM);
        return;
    }
    GIVES(api->define_event(engine, SMOS_PKT_IN, NULL, NULL, 0, &event), -EINVAL);
    GIVES(api->define_event(engine, SMOS_PKT_IN, no, NULL, 0, NULL), -EINVAL);
    GIVES(api->define_event(engine, SMOS_PKT_IN, no, NULL, 1, &event), -EINVAL);
    GIVES(api->define_event(engine, SMOS_PKT_IN, no, big, sizeof big, &event), -EINVAL);
    GIVES(api->define_event(engine, SMOS_PKT_IN, no, big, SIZE_MAX, &event), -EINVAL);
    for (size_t i = 0; i < 5; i++) GIVES(api->define_event(engine, BAD_EVENTS[i], no, NULL, 0, &event), -ENOENT);
    GIVES(api->define_event(engine, removed, no, NULL, 0, &event), -ENOENT);
}

static void probe_alloc_event(void)
{
    uint32_t event;
    GIVES(api->alloc_event(NULL, own_event, &event), -EINVAL);
    if (nobody()) {
        GIVES(api->alloc_event(engine, own_event, &event), -EPERM);
        return;
    }
    GIVES(api->alloc_event(engine, own_event, NULL), -EINVAL);
    GIVES(api->alloc_event(engine, SMOS_PKT_IN, &event), -EINVAL); /* no predicate could raise it */
    for (size_t i = 0; i < 5; i++) GIVES(api->alloc_event(engine, BAD_EVENTS[i], &event), -ENOENT);
    GIVES(api->alloc_event(engine, removed, &event), -ENOENT);
}

static void probe_raise_event(void)
{
    GIVES(api->raise_event(NULL, outcome), -EINVAL);
    if (nobody() || at == INIT) {
        GIVES(api->raise_event(engine, outcome), -EPERM);
        return;
    }
    for (size_t i = 0; i < 5; i++) GIVES(api->raise_event(engine, BAD_EVENTS[i]), -ENOENT);
    GIVES(api->raise_event(engine, SMOS_PKT_IN), -ENOENT);
    GIVES(api->raise_event(engine, removed), -ENOENT);
    GIVES(api->raise_event(engine, outcome), at == IN_PREDICATE ? 0 : -EPERM);
    GIVES(api->raise_event(engine, own_event), -EPERM);
}

static void probe_remove_event(void)
{
    GIVES(api->remove_event(NULL, own_event), -EINVAL);
    if (nobody()) {
        GIVES(api->remove_event(engine, own_event), -EPERM);
        return;
    }
    for (size_t i = 0; i < 5; i++) GIVES(api->remove_event(engine, BAD_EVENTS[i]), -ENOENT);
    GIVES(api->remove_event(engine, SMOS_PKT_IN), -ENOENT);
    GIVES(api->remove_event(engine, removed), -ENOENT);
}

static int64_t do_set_option(smos_engine_t *e, smos_sock_t sock, smos_flow_t flow) { return api->set_option(e, sock, flow, SMOS_BOTH, SMOS_OPT_BUFFER, 1000); }

static void probe_set_option(void)
{
    bool flows = common(do_set_option, -ENOTCONN);
    if (nobody()) return;
    const smos_flow_t where[] = {0, flows ? good : 0};
    for (int k = 0; k < 2; k++) {
        for (size_t i = 0; i < 5; i++) GIVES(api->set_option(engine, 0, where[k], BAD_SIDES[i], SMOS_OPT_HISTORY, 1), -EINVAL);
        for (int option = -1; option < 8; option++)
            if ((option < 1 || option > 3) && (option != SMOS_OPT_DATAGRAMS || where[k])) GIVES(api->set_option(engine, 0, where[k], SMOS_BOTH, option, 1), -EINVAL);
        GIVES(api->set_option(engine, 0, where[k], SMOS_BOTH, SMOS_OPT_HISTORY, UINT64_MAX), -EINVAL);
        GIVES(api->set_option(engine, 0, where[k], SMOS_BOTH, SMOS_OPT_HISTORY, UINT32_MAX), -EINVAL);
        GIVES(api->set_option(engine, 0, where[k], SMOS_BOTH, SMOS_OPT_BUFFER, UINT64_MAX), -EINVAL);
        GIVES(api->set_option(engine, 0, where[k], SMOS_BOTH, SMOS_OPT_OVERLAP, 15), -EINVAL);
    }
    GIVES(api->set_option(engine, raw_sock, 0, SMOS_BOTH, SMOS_OPT_FRAMES, 2), -EINVAL);
    GIVES(api->set_option(engine, 0, 0, SMOS_BOTH, SMOS_OPT_DATAGRAMS, 2), -EINVAL);
    GIVES(api->set_option(engine, raw_sock, 0, SMOS_BOTH, SMOS_OPT_DATAGRAMS, 1), -EINVAL);
}

static int64_t do_get_option(smos_engine_t *e, smos_sock_t sock, smos_flow_t flow)
{
    uint64_t value;
    return api->get_option(e, sock, flow, SMOS_CLIENT, SMOS_OPT_HISTORY, &value);
}

static void probe_get_option(void)
{
    uint64_t value;
    common(do_get_option, -ENOTCONN);
    if (nobody()) return;
    GIVES(api->get_option(engine, 0, 0, SMOS_CLIENT, SMOS_OPT_HISTORY, NULL), -EINVAL);
    GIVES(api->get_option(engine, 0, 0, SMOS_BOTH, SMOS_OPT_HISTORY, &value), -EINVAL);
    for (size_t i = 0; i < 5; i++) {
        GIVES(api->get_option(engine, 0, 0, BAD_SIDES[i], SMOS_OPT_HISTORY, &value), -EINVAL);
        GIVES(api->get_option(engine, 0, 0, SMOS_CLIENT, BAD_SIDES[i] == 3 ? 0 : BAD_SIDES[i], &value), -EINVAL);
    }
}

/* Reading: of a flow only. */
static void probe_reader(with_flow_t call, int64_t (*side)(int side))
{
    if (!common(call, -ENOTCONN)) return;
    GIVES(call(engine, 0, 0), -EINVAL);
    if (!good) return;
    GIVES(call(engine, raw_sock, good), -ENOTCONN);
    for (size_t i = 0; i < 5; i++) GIVES(side(BAD_SIDES[i]), -EINVAL);
}

static char room[16];
static int64_t do_peek(smos_engine_t *e, smos_sock_t sock, smos_flow_t flow) { return api->peek(e, sock, flow, SMOS_SERVER, room, sizeof room, NULL); }
static int64_t peek_side(int side) { return api->peek(engine, 0, good, side, room, sizeof room, NULL); }

static void probe_peek(void)
{
    uint64_t lost = 7;
    probe_reader(do_peek, peek_side);
    GIVES(api->peek(NULL, 0, 0, 0, NULL, 0, &lost), -EINVAL);
    GIVES(lost, 0);
    if (!good) return;
    GIVES(api->peek(engine, 0, good, SMOS_BOTH, room, sizeof room, NULL), -EINVAL);
    GIVES(api->peek(engine, 0, good, SMOS_SERVER, NULL, 1, NULL), -EINVAL);
    GIVES(api->peek(engine, 0, good, SMOS_SERVER, room, SIZE_MAX, NULL), -EINVAL);
    GIVES(api->peek(engine, 0, good, SMOS_SERVER, NULL, 0, NULL), 0);
}

static int64_t do_peek_at(smos_engine_t *e, smos_sock_t sock, smos_flow_t flow) { return api->peek_at(e, sock, flow, SMOS_SERVER, room, sizeof room, UINT64_C(1) << 40); }
static int64_t peek_at_side(int side) { return api->peek_at(engine, 0, good, side, room, sizeof room, 0); }

static void probe_peek_at(void)
{
    probe_reader(do_peek_at, peek_at_side);
    if (!good) return;
    GIVES(do_peek_at(engine, 0, good), -ENODATA);
    GIVES(api->peek_at(engine, 0, good, SMOS_SERVER, NULL, 1, 0), -EINVAL);
    GIVES(api->peek_at(engine, 0, good, SMOS_SERVER, room, SIZE_MAX, 0), -EINVAL);
    GIVES(api->peek_at(engine, 0, good, SMOS_SERVER, room, sizeof room, UINT64_MAX), -ENODATA);
}

static smos_range_t ranges[4];
static int64_t do_buffered(smos_engine_t *e, smos_sock_t sock, smos_flow_t flow) { return api->buffered(e, sock, flow, SMOS_SERVER, ranges, 4); }
static int64_t buffered_side(int side) { return api->buffered(engine, 0, good, side, ranges, 4); }

static void probe_buffered(void)
{
    probe_reader(do_buffered, buffered_side);
    if (!good) return;
    GIVES(api->buffered(engine, 0, good, SMOS_SERVER, ranges, -1), -EINVAL);
    GIVES(api->buffered(engine, 0, good, SMOS_SERVER, ranges, INT32_MIN), -EINVAL);
    GIVES(api->buffered(engine, 0, good, SMOS_SERVER, NULL, 1), -EINVAL);
    GIVES(api->buffered(engine, 0, good, SMOS_SERVER, NULL, 0), 0);
}

static smos_buffer_info_t info;
static int64_t do_buffer_info(smos_engine_t *e, smos_sock_t sock, smos_flow_t flow) { return api->buffer_info(e, sock, flow, SMOS_SERVER, &info); }
static int64_t buffer_info_side(int side) { return api->buffer_info(engine, 0, good, side, &info); }

static void probe_buffer_info(void)
{
    probe_reader(do_buffer_info, buffer_info_side);
    if (good) GIVES(api->buffer_info(engine, 0, good, SMOS_SERVER, NULL), -EINVAL);
}

static int64_t do_stop_socket(smos_engine_t *e, smos_sock_t sock, smos_flow_t flow) { return api->stop_socket(e, sock, flow, SMOS_BOTH); }

static void probe_stop_socket(void)
{
    if (!common(do_stop_socket, -ENOTCONN)) return;
    GIVES(do_stop_socket(engine, 0, 0), -EINVAL);
    for (size_t i = 0; i < 5; i++)
        if (good) GIVES(api->stop_socket(engine, 0, good, BAD_SIDES[i]), -EINVAL);
}

static int64_t do_set_context(smos_engine_t *e, smos_sock_t sock, smos_flow_t flow) { return api->set_context(e, sock, flow, NULL); }
static void probe_set_context(void) { common(do_set_context, -ENOTCONN); }

static void probe_get_context(void)
{
    const smos_flow_t flows[] = {0, stale, unwatched, UINT64_MAX};
    for (size_t i = 0; i < 4; i++) {
        CHECK(api->get_context(NULL, 0, flows[i]) == NULL);
        CHECK(api->get_context(engine, 0, flows[i]) == NULL);
        CHECK(api->get_context(engine, UINT32_MAX, flows[i]) == NULL);
    }
}

static void probe_state(void)
{
    const smos_flow_t flows[] = {0, stale, unwatched, UINT64_MAX};
    for (size_t i = 0; i < 4; i++) {
        CHECK(api->state(NULL, flows[i]) == NULL);
        CHECK(api->state(engine, flows[i]) == NULL);
    }
    if (good) CHECK(api->state(engine, good) != NULL);
}

static int64_t timer_of(smos_flow_t flow, int64_t delay, int64_t period, smos_handler_t handler) { return api->set_timer(engine, flow, delay, period, handler, NULL, NULL); }

static void probe_set_timer(void)
{
    uint64_t timer;
    GIVES(api->set_timer(NULL, 0, 1, 0, nothing, NULL, &timer), -EINVAL);
    if (nobody()) {
        GIVES(timer_of(0, 1, 0, nothing), -EPERM);
        return;
    }
    GIVES(timer_of(0, 1, 0, NULL), -EINVAL);
    static const int64_t bad[] = {-1, INT64_MIN, INT64_MAX, INT64_MAX / 2};
    for (size_t i = 0; i < 4; i++) {
        GIVES(timer_of(0, bad[i], 0, nothing), -EINVAL);
        GIVES(timer_of(0, 0, bad[i], nothing), -EINVAL);
    }
    if (at == INIT) {
        GIVES(timer_of(1, 1, 0, nothing), -EPERM);
        return;
    }
    GIVES(timer_of(UINT64_MAX, 1, 0, nothing), -ESTALE);
    GIVES(timer_of(stale, 1, 0, nothing), -ESTALE);
    GIVES(api->set_timer(engine, 0, INT64_MAX / 4, INT64_MAX / 4, nothing, NULL, &timer), 0);
    GIVES(api->cancel_timer(engine, timer), 0);
    GIVES(api->cancel_timer(engine, timer), -ENOENT);
}

static void probe_cancel_timer(void)
{
    GIVES(api->cancel_timer(NULL, 1), -EINVAL);
    if (nobody()) {
        GIVES(api->cancel_timer(engine, 1), -EPERM);
        return;
    }
    const uint64_t bad[] = {0, 1, UINT32_MAX, UINT64_MAX, UINT64_C(1) << 63 | 64, foreign_timer};
    for (size_t i = 0; i < 6; i++)
        if (bad[i] || at != INIT) GIVES(api->cancel_timer(engine, bad[i]), -ENOENT);
}

static void on_burst(void *self, const smos_call_t *call);

static void probe_at_burst_end(void)
{
    GIVES(api->at_burst_end(NULL, nothing, NULL), -EINVAL);
    if (nobody()) {
        GIVES(api->at_burst_end(engine, nothing, NULL), -EPERM);
        return;
    }
    GIVES(api->at_burst_end(engine, NULL, NULL), 0);
    GIVES(api->at_burst_end(engine, on_burst, NULL), 0);
}

static void probe_overwrite(void)
{
    GIVES(api->overwrite(NULL, 0, 0, "x", 1), -EINVAL);
    if (!in_packet()) {
        GIVES(api->overwrite(engine, SMOS_FROM_FRAME, 0, "x", 1), -EPERM);
        return;
    }
    for (size_t i = 0; i < 5; i++) GIVES(api->overwrite(engine, BAD_SIDES[i] == 3 ? 4 : BAD_SIDES[i], 0, "x", 1), -EINVAL);
    for (int from = SMOS_FROM_FRAME; from <= SMOS_FROM_PAYLOAD; from++) {
        GIVES(api->overwrite(engine, from, 0, NULL, 1), -EINVAL);
        GIVES(api->overwrite(engine, from, UINT32_MAX, "x", 1), -EINVAL);
        GIVES(api->overwrite(engine, from, 0, "x", UINT32_MAX), -EINVAL);
        GIVES(api->overwrite(engine, from, UINT32_MAX, "x", UINT32_MAX), -EINVAL);
        GIVES(api->overwrite(engine, from, 0, NULL, 0), 0);
    }
    GIVES(api->overwrite(engine, SMOS_FROM_IP, 0, "\x41", 1), -EINVAL); /* no header any more */
    GIVES(api->overwrite(engine, SMOS_FROM_IP, 9, "\x11", 1), -EINVAL); /* another protocol */
    GIVES(api->overwrite(engine, SMOS_FROM_L4, 12, "\xf0", 1), -EINVAL); /* a longer header than there is */
}

static void probe_insert(void)
{
    GIVES(api->insert(NULL, 0, "x", 1), -EINVAL);
    if (!in_packet()) {
        GIVES(api->insert(engine, 0, "x", 1), -EPERM);
        return;
    }
    GIVES(api->insert(engine, 0, NULL, 1), -EINVAL);
    GIVES(api->insert(engine, 0, "x", UINT32_MAX), -EMSGSIZE);
    GIVES(api->insert(engine, 0, NULL, 0), 0);
    if (at != AT_SENDER) {
        GIVES(api->insert(engine, 0, "x", 1), -EPERM);
        return;
    }
    GIVES(api->insert(engine, UINT32_MAX, "x", 1), -EINVAL);
    GIVES(api->insert(engine, 100, "x", 1), -EINVAL);
}

static void probe_remove(void)
{
    GIVES(api->remove(NULL, 0, 1), -EINVAL);
    if (!in_packet()) {
        GIVES(api->remove(engine, 0, 1), -EPERM);
        return;
    }
    GIVES(api->remove(engine, 0, 0), 0);
    if (at != AT_SENDER) {
        GIVES(api->remove(engine, 0, 1), -EPERM);
        return;
    }
    GIVES(api->remove(engine, UINT32_MAX, 1), -EINVAL);
    GIVES(api->remove(engine, 0, UINT32_MAX), -EINVAL);
    GIVES(api->remove(engine, UINT32_MAX, UINT32_MAX), -EINVAL);
}

static void probe_inject(void)
{
    smos_injection_t in = {.to = SMOS_CLIENT, .payload = room, .length = 4};
    GIVES(api->inject(NULL, 1, &in), -EINVAL);
    if (nobody()) {
        GIVES(api->inject(engine, 1, &in), -EPERM);
        return;
    }
    GIVES(api->inject(engine, 1, NULL), -EINVAL);
    if (at == INIT) {
        GIVES(api->inject(engine, 1, &in), -EPERM);
        return;
    }
    GIVES(api->inject(engine, 0, &in), -ESTALE);
    GIVES(api->inject(engine, UINT64_MAX, &in), -ESTALE);
    GIVES(api->inject(engine, stale, &in), -ESTALE);
    GIVES(api->inject(engine, alive, &in), -ENOTSUP); /* this port cannot send */
    in.length = 1401;
    GIVES(api->inject(engine, alive, &in), -EMSGSIZE);
    in.length = UINT32_MAX;
    GIVES(api->inject(engine, alive, &in), -EMSGSIZE);
    in.payload = NULL;
    GIVES(api->inject(engine, alive, &in), -EINVAL);
    in = (smos_injection_t){.to = 2};
    GIVES(api->inject(engine, alive, &in), -EINVAL);
    in.to = 255;
    GIVES(api->inject(engine, alive, &in), -EINVAL);
}

static void probe_owner(void)
{
    smos_tuple_t tuple;
    memset(&tuple, 0xff, sizeof tuple);
    GIVES(api->owner(NULL, &tuple), -EINVAL);
    GIVES(api->owner(engine, NULL), -EINVAL);
    GIVES(api->owner(engine, &tuple), 0);
}

static void probe_worker(void)
{
    uint32_t workers;
    GIVES(api->worker(NULL, &workers), -EINVAL);
    GIVES(api->worker(engine, NULL), 0);
    GIVES(api->worker(engine, &workers), 0);
    GIVES(workers, 1);
}

static void probe_counter(void)
{
    static const char *const bad[] = {NULL, "", "Upper", "a b", "\xff", "x123456789012345678901234567890123"};
    CHECK(api->counter(NULL, "fine") == NULL);
    for (size_t i = 0; i < 6; i++) CHECK(api->counter(engine, bad[i]) == NULL);
    if (at != INIT) CHECK(api->counter(engine, "fine") == NULL);
    if (at != INIT) return;
    char name[16];
    for (int i = 0; i < SMOS_MODULE_COUNTERS; i++) {
        snprintf(name, sizeof name, "n%d", i);
        CHECK(api->counter(engine, name) != NULL);
    }
    CHECK(api->counter(engine, "n0") == api->counter(engine, "n0") && api->counter(engine, "one_more") == NULL);
}

static void probe_redirect(void)
{
    smos_tuple_t tuple = {.version = 4};
    GIVES(api->redirect(NULL, &tuple), -EINVAL);
    if (nobody()) {
        GIVES(api->redirect(engine, &tuple), -EPERM);
        return;
    }
    GIVES(api->redirect(engine, NULL), -EINVAL);
    int status = api->redirect(engine, &tuple);
    CHECK(status == -EPERM || status == 0);
}

/* ---- all of them ---- */

#define P(function) {offsetof(smos_api_t, function), probe_##function, #function}
static const struct {
    size_t offset;
    void (*probe)(void);
    const char *name;
} PROBES[] = {
    P(flow_info), P(drop), P(reset), P(stop), P(emit), P(log), P(now_ns), P(anomaly_name), P(state_name), P(param), P(flow_count), P(last_error), P(socket), P(bind), P(close),
    P(register_handler), P(unregister_handler), P(define_event), P(alloc_event), P(raise_event), P(remove_event), P(set_option), P(get_option), P(peek), P(peek_at), P(buffered),
    P(buffer_info), P(stop_socket), P(set_context), P(get_context), P(state), P(set_timer), P(cancel_timer), P(at_burst_end), P(overwrite), P(insert), P(remove), P(inject), P(owner),
    P(worker), P(counter), P(redirect),
};
#define PROBE_COUNT (sizeof PROBES / sizeof *PROBES)

static void probe_all(place_t place, smos_flow_t flow)
{
    if (probed[place]) return;
    probed[place] = 1;
    at = place;
    good = flow;
    for (size_t i = 0; i < PROBE_COUNT; i++) PROBES[i].probe();
}

static void test_every_function_of_the_table_has_a_probe(void)
{
    api = smos_shard_api();
    CHECK_EQ(api->size, sizeof *api);
    for (size_t offset = offsetof(smos_api_t, flow_info); offset < sizeof *api; offset += sizeof(void (*)(void))) {
        size_t found = 0;
        for (size_t i = 0; i < PROBE_COUNT; i++) found += PROBES[i].offset == offset;
        if (found != 1) fprintf(stderr, "the function %zu bytes into smos_api_t has %zu probes\n", offset, found);
        CHECK_EQ(found, 1);
        void *function;
        memcpy(&function, (const char *)api + offset, sizeof function);
        CHECK(function != NULL);
    }
}

/* ---- the places ---- */

static smos_flow_t reused; /* of the connection whose port is used again */

static void on_other(void *self, const smos_call_t *call)
{
    (void)self;
    if (call->tuple->sport == 1009) unwatched = call->flow;
    if (!foreign_timer) CHECK_EQ(api->set_timer(engine, 0, INT64_C(1) << 50, 0, nothing, NULL, &foreign_timer), 0);
}

static void on_start(void *self, const smos_call_t *call)
{
    (void)self;
    if (call->tuple->sport == 1007 && reused && !stale) stale = reused;
    if (call->tuple->sport == 1007) reused = call->flow;
    if (call->tuple->sport == 1005) alive = call->flow;
}

static void on_packet(void *self, const smos_call_t *call)
{
    (void)self;
    if (call->tuple->sport != 1000 || !call->packet->payload_len) return;
    probe_all(call->hook == SMOS_SENDER ? AT_SENDER : AT_RECEIVER, call->flow);
}

static void on_data(void *self, const smos_call_t *call)
{
    (void)self;
    if (call->tuple->sport == 1000) probe_all(IN_DATA, call->flow);
}

static void on_end(void *self, const smos_call_t *call)
{
    (void)self;
    if (call->tuple->sport == 1000) probe_all(IN_END, call->flow);
}

static void on_orphan(void *self, const smos_call_t *call)
{
    (void)self, (void)call;
    probe_all(IN_ORPHAN, 0);
}

static void on_raw(void *self, const smos_call_t *call)
{
    (void)self;
    if (stale && alive) probe_all(call->packet->ip ? IN_RAW : IN_FRAME, 0);
}

static void on_timer(void *self, const smos_call_t *call)
{
    (void)self, (void)call;
    if (stale && alive) probe_all(IN_TIMER, 0);
}

static void on_burst(void *self, const smos_call_t *call)
{
    (void)self, (void)call;
    if (stale && alive) probe_all(IN_BURST, 0);
}

static int on_ask(void *self, const smos_call_t *call)
{
    (void)self;
    if (call->tuple->sport == 1000) probe_all(IN_PREDICATE, call->flow);
    return 0;
}

/* As in init(), of the module that everything is tried from. */
static void set_up(void)
{
    static const struct { uint32_t event; int hook; smos_handler_t handler; } ALL[] = {
        {SMOS_CONN_START, SMOS_SENDER, on_start}, {SMOS_PKT_IN, SMOS_SENDER | SMOS_RECEIVER, on_packet}, {SMOS_NEW_DATA, 0, on_data}, {SMOS_CONN_END, 0, on_end}, {SMOS_ORPHAN, 0, on_orphan},
    };
    for (size_t i = 0; i < sizeof ALL / sizeof *ALL; i++) CHECK_EQ(api->register_handler(engine, 0, 0, ALL[i].event, ALL[i].hook, SMOS_BOTH, ALL[i].handler, NULL), 0);
    CHECK_EQ(api->bind(engine, 0, "not port 1009", NULL), 0);
    CHECK_EQ(api->set_option(engine, 0, 0, SMOS_BOTH, SMOS_OPT_HISTORY, 1000), 0);
    CHECK_EQ(api->socket(engine, SMOS_RAW, &raw_sock), 0);
    CHECK_EQ(api->set_option(engine, raw_sock, 0, SMOS_BOTH, SMOS_OPT_FRAMES, 1), 0);
    CHECK_EQ(api->register_handler(engine, raw_sock, 0, SMOS_PKT_IN, 0, SMOS_BOTH, on_raw, NULL), 0);
    CHECK_EQ(api->socket(engine, SMOS_STREAM, &spare), 0);
    CHECK_EQ(api->bind(engine, spare, "udp port 9", NULL), 0);
    CHECK_EQ(api->socket(engine, SMOS_STREAM, &closed), 0);
    CHECK_EQ(api->close(engine, closed, 0), 0);
    CHECK_EQ(api->define_event(engine, SMOS_NEW_DATA, on_ask, NULL, 0, &own_event), 0);
    CHECK_EQ(api->alloc_event(engine, own_event, &outcome), 0);
    CHECK_EQ(api->register_handler(engine, 0, 0, own_event, 0, SMOS_BOTH, nothing, NULL), 0);
    CHECK_EQ(api->define_event(engine, SMOS_NEW_DATA, no, "gone", 4, &removed), 0);
    CHECK_EQ(api->remove_event(engine, removed), 0);
    CHECK_EQ(api->set_timer(engine, 0, MS, MS, on_timer, NULL, NULL), 0);
    CHECK_EQ(api->at_burst_end(engine, on_burst, NULL), 0);
    probe_all(INIT, 0);
}

static void arp(talk_t *t)
{
    segment(t, 0, 0, 0, 0, 0, "");
    memcpy((uint8_t *)(uintptr_t)t->frames[t->count - 1].data + 12, "\x08\x06", 2);
}

static void test_every_function_everywhere(void)
{
    api = smos_shard_api();
    talk_t *t = talk();
    handshake(t, 9);
    segment(t, 7, 0, SMOS__SYN, 100, 0, "");
    segment(t, 7, 1, SMOS__RST | SMOS__ACK, 0, 101, "");
    handshake(t, 5);
    handshake(t, 0);
    segment(t, 7, 0, SMOS__SYN, 5000, 0, ""); /* the port is used again: the first flow is over */
    for (uint32_t i = 0; i < 4; i++) {
        segment(t, 0, 0, SMOS__ACK, 101 + 5 * i, 501, "bytes");
        segment(t, 3, 0, SMOS__ACK, 1, 1, "of no connection");
        arp(t);
    }
    segment(t, 0, 1, SMOS__RST | SMOS__ACK, 501, 121, "");
    segment(t, 0, 0, SMOS__SYN, 7000, 0, "");
    t->burst = 4;
    smos_shard_t *s = shard_of_talk(t);
    s->config.midstream = 1;
    s->config.publish = 15;
    engine = smos_shard_engine(s);
    probe_all(OUTSIDE, 0);
    smos_module_t other = {SMOS_MODULE_HEADER, .name = "other"}, hostile = {SMOS_MODULE_HEADER, .name = "hostile", .state_size = 8};
    smos_box_t *box = module_of(s, &other);
    smos_shard_use(s, box);
    CHECK_EQ(api->register_handler(engine, 0, 0, SMOS_CONN_START, 0, SMOS_BOTH, on_other, NULL), 0);
    smos_shard_use(s, NULL);
    commit(s, box);
    box = module_of(s, &hostile);
    smos_shard_use(s, box);
    set_up();
    smos_shard_use(s, NULL);
    commit(s, box);
    uint32_t bits;
    while (!((bits = smos_shard_run(s, 1000000000)) & SMOS_RUN_END)) CHECK(!(bits & SMOS_RUN_FAILED));
    probe_all(AFTER, 0);
    run_to_end(s, t);
    for (int i = 0; i < PLACES; i++) {
        if (!probed[i]) fprintf(stderr, "never in %s\n", PLACE[i]);
        CHECK(probed[i]);
    }
}

int main(void)
{
    RUN(test_every_function_of_the_table_has_a_probe);
    RUN(test_every_function_everywhere);
    return 0;
}
