/* The programming model: sockets, registrations, user-defined events, reading streams, timers, as a module sees them. */
#include <errno.h>
#include <stdarg.h>

#include "conversation.h"

static const smos_api_t *api;
static char trace[8192];

static void say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    size_t used = strlen(trace);
    vsnprintf(trace + used, sizeof trace - used, format, args);
    va_end(args);
}

static void began(void)
{
    api = smos_shard_api();
    trace[0] = '\0';
}

/* A module without registrations; its setup is done as in init(). */
static smos_box_t *box_named(smos_shard_t *s, const char *name)
{
    smos_module_t m = {SMOS_MODULE_HEADER, .name = name};
    smos_box_t *box = module_of(s, &m);
    smos_shard_use(s, box);
    return box;
}

#define E(call) smos_shard_engine((smos_shard_t *)(call))

/* ---- the order of a connection's life (mos.md 1.7, with its faults mended) ---- */

static void note(void *self, const smos_call_t *c)
{
    static const char *const NAMES[] = {"PKT", "START", "SETUP", "DATA", "REXMIT", "STATE", "GAP", "ANOMALY", "ERROR", "END", "ORPHAN"};
    (void)self;
    say("%s%s%s", NAMES[c->event], c->hook == SMOS_SENDER ? "@snd" : c->hook == SMOS_RECEIVER ? "@rcv" : "", c->side == SMOS_CLIENT ? "/cli" : "/svr");
    if (c->event == SMOS_STATE_CHANGE) say(">%s", api->state_name(c->detail));
    say(" ");
    if (c->event == SMOS_PKT_IN && c->hook == SMOS_RECEIVER) say("| ");
}

static void test_order_of_a_connection(void)
{
    began();
    talk_t *t = talk();
    handshake(t, 0);
    segment(t, 0, 0, SMOS__SYN, 100, 0, ""); /* again */
    segment(t, 0, 0, SMOS__ACK | SMOS__PSH, 101, 501, "hello");
    segment(t, 0, 1, SMOS__ACK | SMOS__PSH, 501, 106, "world");
    goodbye(t, 0, 5, 5);
    smos_shard_t *s = shard_of_talk(t);
    smos_box_t *box = box_named(s, "trace");
    for (uint32_t e = 0; e < SMOS_EVENT_COUNT; e++)
        if (e != SMOS_ANOMALY) CHECK_EQ(api->register_handler(E(s), 0, 0, e, smos__default_hooks(e) ? SMOS_SENDER | SMOS_RECEIVER : 0, SMOS_BOTH, note, NULL), 0);
    smos_shard_use(s, NULL);
    commit(s, box);
    run_to_end(s, t);
    CHECK_STR(trace,
              "PKT@snd/cli START@snd/cli STATE@snd/cli>SYN_SENT START@rcv/svr PKT@rcv/svr | STATE@rcv/svr>SYN_RECEIVED "
              "PKT@snd/svr PKT@rcv/cli | STATE@rcv/cli>ESTABLISHED "
              "PKT@snd/cli PKT@rcv/svr | SETUP@rcv/svr STATE@rcv/svr>ESTABLISHED "
              "PKT@snd/cli REXMIT@snd/cli REXMIT@rcv/svr PKT@rcv/svr | "
              "PKT@snd/cli DATA/svr PKT@rcv/svr | "
              "PKT@snd/svr DATA/cli PKT@rcv/cli | "
              "PKT@snd/cli STATE@snd/cli>FIN_WAIT_1 PKT@rcv/svr | STATE@rcv/svr>CLOSE_WAIT "
              "PKT@snd/svr STATE@snd/svr>LAST_ACK PKT@rcv/cli | STATE@rcv/cli>TIME_WAIT "
              "PKT@snd/cli PKT@rcv/svr | STATE@rcv/svr>CLOSED "
              "END/cli END/svr ");
}

/* ---- chains, filters, closing ---- */

static void letter(void *self, const smos_call_t *c)
{
    (void)self;
    if (c->packet->payload_len) say("%s", (const char *)c->arg);
}

static void test_chain_order_and_filters(void)
{
    began();
    talk_t *t = talk();
    handshake(t, 0);
    segment(t, 0, 0, SMOS__ACK, 101, 501, "x");
    segment(t, 0, 1, SMOS__ACK, 501, 102, "y");
    smos_shard_t *s = shard_of_talk(t);
    smos_box_t *box = box_named(s, "chain");
    static const char *const FILTERS[] = {"tcp port 80", "udp", NULL, "src host 10.0.0.1 and tcp"};
    for (int i = 0; i < 4; i++) {
        smos_sock_t sock;
        CHECK_EQ(api->socket(E(s), SMOS_STREAM, &sock), 0);
        CHECK_EQ(api->bind(E(s), sock, FILTERS[i], NULL), 0);
        CHECK_EQ(api->register_handler(E(s), sock, 0, SMOS_PKT_IN, SMOS_SENDER, SMOS_BOTH, letter, (void *)(uintptr_t)(i == 0 ? "a" : i == 1 ? "b" : i == 2 ? "c" : "d")), 0);
    }
    smos_sock_t sock;
    CHECK_EQ(api->socket(E(s), SMOS_STREAM, &sock), 0);
    CHECK_EQ(api->bind(E(s), sock, "tcp port nonsense", NULL), -EINVAL);
    CHECK(strstr(api->last_error(E(s)), "bind: bad filter: ") == api->last_error(E(s)));
    smos_shard_use(s, NULL);
    commit(s, box);
    run_to_end(s, t);
    CHECK_STR(trace, "acddca"); /* client packets in the chain's order, server packets reversed */
}

static smos_sock_t own, other;

static void close_both(void *self, const smos_call_t *c)
{
    say("%s", (const char *)c->arg);
    if (c->packet->payload_len != 1) return;
    CHECK_EQ(api->close(E(self), own, 0), 0); /* itself, in its own handler */
    CHECK_EQ(api->close(E(self), own, 0), -EBADF);
    CHECK_EQ(api->close(E(self), other, c->flow), 0);
    CHECK_EQ(api->close(E(self), other, c->flow), -ENOTCONN);
}

static void test_close_in_a_callback(void)
{
    began();
    talk_t *t = talk();
    handshake(t, 0);
    segment(t, 0, 0, SMOS__ACK, 101, 501, "x");
    segment(t, 0, 0, SMOS__ACK, 102, 501, "yz");
    handshake(t, 1);
    smos_shard_t *s = shard_of_talk(t);
    smos_box_t *box = box_named(s, "closes");
    CHECK_EQ(api->socket(E(s), SMOS_STREAM, &own), 0);
    CHECK_EQ(api->socket(E(s), SMOS_STREAM, &other), 0);
    CHECK_EQ(api->register_handler(E(s), own, 0, SMOS_PKT_IN, SMOS_SENDER, SMOS_BOTH, close_both, (void *)(uintptr_t)"o"), 0);
    CHECK_EQ(api->register_handler(E(s), own, 0, SMOS_PKT_IN, SMOS_SENDER, SMOS_BOTH, letter, (void *)(uintptr_t)"never"), 0);
    CHECK_EQ(api->register_handler(E(s), other, 0, SMOS_PKT_IN, SMOS_SENDER, SMOS_BOTH, letter, (void *)(uintptr_t)"w"), 0);
    CHECK_EQ(api->close(E(s), 0, 0), -EPERM);
    smos_shard_use(s, NULL);
    t->burst = 2;
    commit(s, box);
    run_to_end(s, t);
    CHECK_STR(trace, "oooow"); /* a flow is left from its next event on */
}

/* ---- user-defined events ---- */

static int asked;

static int longer(void *self, const smos_call_t *c)
{
    (void)self;
    asked++;
    return c->length >= *(const uint64_t *)c->arg;
}

static void heard(void *self, const smos_call_t *c)
{
    (void)self;
    say("%s%u ", (const char *)c->arg, (unsigned)c->length);
}

static void test_user_defined_events(void)
{
    began();
    talk_t *t = talk();
    handshake(t, 0);
    segment(t, 0, 0, SMOS__ACK, 101, 501, "12");
    segment(t, 0, 0, SMOS__ACK, 103, 501, "1234");
    segment(t, 0, 0, SMOS__ACK, 107, 501, "123456");
    smos_shard_t *s = shard_of_talk(t);
    smos_box_t *box = box_named(s, "events");
    uint32_t four, six, same, gone, eight;
    uint64_t n = 4;
    CHECK_EQ(api->define_event(E(s), SMOS_NEW_DATA, longer, &n, sizeof n, &four), 0);
    CHECK_EQ(api->define_event(E(s), SMOS_NEW_DATA, longer, &n, sizeof n, &same), 0);
    CHECK_EQ(same, four);
    n = 6;
    CHECK_EQ(api->define_event(E(s), four, longer, &n, sizeof n, &six), 0);
    CHECK_EQ(api->define_event(E(s), SMOS_NEW_DATA, longer, &n, sizeof n, &gone), 0);
    CHECK(gone != six);
    n = 8;
    CHECK_EQ(api->define_event(E(s), six, longer, &n, sizeof n, &eight), 0);
    n = 0; /* the definitions have their own copies */
    CHECK_EQ(api->register_handler(E(s), 0, 0, SMOS_NEW_DATA, 0, SMOS_SERVER, heard, (void *)(uintptr_t)"any"), 0);
    CHECK_EQ(api->register_handler(E(s), 0, 0, six, 0, SMOS_SERVER, heard, (void *)(uintptr_t)"six"), 0);
    CHECK_EQ(api->register_handler(E(s), 0, 0, four, 0, SMOS_SERVER, heard, (void *)(uintptr_t)"four"), 0);
    CHECK_EQ(api->register_handler(E(s), 0, 0, four, 0, SMOS_SERVER, heard, (void *)(uintptr_t)"FOUR"), 0);
    CHECK_EQ(api->register_handler(E(s), 0, 0, gone, 0, SMOS_SERVER, heard, (void *)(uintptr_t)"gone"), 0);
    CHECK_EQ(api->register_handler(E(s), 0, 0, eight, 0, SMOS_SERVER, heard, (void *)(uintptr_t)"eight"), 0);
    CHECK_EQ(api->remove_event(E(s), gone), 0);
    CHECK_EQ(api->remove_event(E(s), gone), -ENOENT);
    CHECK_EQ(api->register_handler(E(s), 0, 0, gone, 0, SMOS_SERVER, heard, NULL), -ENOENT);
    CHECK_EQ(api->remove_event(E(s), four), 0); /* defined twice: still there */
    CHECK_EQ(api->define_event(E(s), 12345, longer, NULL, 0, &same), -ENOENT);
    CHECK_EQ(api->define_event(E(s), 0, NULL, NULL, 0, &same), -EINVAL);
    smos_shard_use(s, NULL);
    commit(s, box);
    asked = 0;
    run_to_end(s, t);
    CHECK_STR(trace, "any2 any4 four4 FOUR4 any6 four6 FOUR6 six6 ");
    CHECK_EQ(asked, 3 + 2 + 1); /* each filter once per parent event */
}

static uint32_t outcome[3];

static int sort(void *self, const smos_call_t *c)
{
    if (c->data[0] == 'a') CHECK_EQ(api->raise_event(E(self), outcome[0]), 0);
    if (c->data[0] == 'b') CHECK_EQ(api->raise_event(E(self), outcome[1]), 0);
    if (c->data[0] == 'c')
        for (int i = 0; i < 3; i++) CHECK_EQ(api->raise_event(E(self), outcome[i]), 0);
    return c->data[0] != 'n';
}

static void no_raise(void *self, const smos_call_t *c)
{
    (void)c;
    CHECK_EQ(api->raise_event(E(self), outcome[0]), -EPERM);
}

static void test_events_with_several_outcomes(void)
{
    began();
    talk_t *t = talk();
    handshake(t, 0);
    segment(t, 0, 0, SMOS__ACK, 101, 501, "a");
    segment(t, 0, 0, SMOS__ACK, 102, 501, "bb");
    segment(t, 0, 0, SMOS__ACK, 104, 501, "ccc");
    segment(t, 0, 0, SMOS__ACK, 107, 501, "n");
    segment(t, 0, 0, SMOS__ACK, 108, 501, "d");
    smos_shard_t *s = shard_of_talk(t);
    smos_box_t *box = box_named(s, "outcomes");
    uint32_t event;
    static const char *const NAMES[] = {"A", "B", "C"};
    CHECK_EQ(api->define_event(E(s), SMOS_NEW_DATA, sort, NULL, 0, &event), 0);
    CHECK_EQ(api->alloc_event(E(s), SMOS_NEW_DATA, &outcome[0]), -EINVAL);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(api->alloc_event(E(s), event, &outcome[i]), 0);
        CHECK_EQ(api->register_handler(E(s), 0, 0, outcome[i], 0, SMOS_BOTH, heard, (void *)(uintptr_t)NAMES[i]), 0);
    }
    CHECK_EQ(api->register_handler(E(s), 0, 0, event, 0, SMOS_BOTH, no_raise, NULL), 0);
    smos_shard_use(s, NULL);
    commit(s, box);
    run_to_end(s, t);
    CHECK_STR(trace, "A1 B2 A3 B3 C3 ");
}

/* ---- registering on one flow, at any time ---- */

static void second(void *self, const smos_call_t *c)
{
    say("[%s]", (const char *)c->arg);
    if (c->offset == 4) {
        CHECK_EQ(api->unregister_handler(E(self), 0, c->flow, SMOS_NEW_DATA, second, c->arg), 0);
        CHECK_EQ(api->unregister_handler(E(self), 0, c->flow, SMOS_NEW_DATA, second, c->arg), -ENOENT);
    }
}

static void first(void *self, const smos_call_t *c)
{
    say("%u", (unsigned)c->offset);
    if (c->offset == 0 && c->tuple->sport == 1000) CHECK_EQ(api->register_handler(E(self), 0, c->flow, SMOS_NEW_DATA, 0, SMOS_SERVER, second, (void *)(uintptr_t)"own"), 0);
    if (c->offset == 6) CHECK_EQ(api->unregister_handler(E(self), 0, c->flow, SMOS_NEW_DATA, NULL, NULL), 0);
}

static void test_registering_on_one_flow(void)
{
    began();
    talk_t *t = talk();
    for (int i = 0; i < 2; i++) {
        handshake(t, i);
        for (uint32_t k = 0; k < 10; k += 2) segment(t, i, 0, SMOS__ACK, 101 + k, 501, "xy");
        say("");
    }
    smos_shard_t *s = shard_of_talk(t);
    smos_box_t *box = box_named(s, "dynamic");
    CHECK_EQ(api->register_handler(E(s), 0, 0, SMOS_NEW_DATA, 0, SMOS_SERVER, first, NULL), 0);
    smos_shard_use(s, NULL);
    commit(s, box);
    run_to_end(s, t);
    CHECK_STR(trace, "02[own]4[own]6" "0246"); /* own registration from the next event on; nothing of any after offset 6 */
}

static void adds_more(void *self, const smos_call_t *c)
{
    for (int i = 0; i < SMOS__MAX_HANDLERS - 1; i++) {
        int status = api->register_handler(E(self), 0, c->flow, SMOS_GAP, 0, SMOS_BOTH, first, (void *)(intptr_t)(i + 1));
        CHECK_EQ(status, 0);
    }
    CHECK_EQ(api->register_handler(E(self), 0, c->flow, SMOS_GAP, 0, SMOS_BOTH, second, NULL), -ENOSPC);
    say("set%u ", ((smos_shard_t *)self)->events.sets.used);
}

static void test_equal_registrations_are_one_set(void)
{
    began();
    talk_t *t = talk();
    for (int i = 0; i < 300; i++) segment(t, i, 0, SMOS__SYN, 100, 0, "");
    smos_shard_t *s = shard_of_talk(t);
    smos_box_t *box = box_named(s, "many");
    CHECK_EQ(api->register_handler(E(s), 0, 0, SMOS_CONN_START, SMOS_SENDER, SMOS_CLIENT, adds_more, NULL), 0);
    smos_shard_use(s, NULL);
    commit(s, box);
    uint32_t bits;
    while (!((bits = smos_shard_run(s, 1000000000)) & SMOS_RUN_END)) continue;
    CHECK(s->events.sets.used < 80); /* a path of 63 steps, not 300 times 63 */
    CHECK_EQ(s->events.sets.set[s->arena.hot[0].set].refs, 300);
    run_to_end(s, t);
}

/* ---- reading streams ---- */

static char read_bytes[256];

static void peeks(void *self, const smos_call_t *c)
{
    char buffer[64] = "";
    uint64_t lost;
    int64_t n = api->peek(E(self), c->sock, c->flow, SMOS_SERVER, buffer, sizeof buffer - 1, &lost);
    CHECK(n >= 0);
    buffer[n] = '\0';
    say("%s%u", buffer, (unsigned)lost);
    strcat(read_bytes, buffer);
    CHECK_EQ(api->peek(E(self), c->sock, c->flow, SMOS_SERVER, buffer, 1, &lost), 0); /* nothing unread is nothing */
}

static void test_peek_follows_its_cursor(void)
{
    began();
    read_bytes[0] = '\0';
    talk_t *t = talk();
    handshake(t, 0);
    segment(t, 0, 0, SMOS__ACK, 101, 501, "abc");
    segment(t, 0, 0, SMOS__ACK, 107, 501, "ghi");
    segment(t, 0, 0, SMOS__ACK, 104, 501, "def"); /* one segment makes six bytes contiguous */
    smos_shard_t *s = shard_of_talk(t);
    smos_box_t *box = box_named(s, "peek");
    CHECK_EQ(api->set_option(E(s), 0, 0, SMOS_SERVER, SMOS_OPT_HISTORY, 1000), 0);
    CHECK_EQ(api->register_handler(E(s), 0, 0, SMOS_NEW_DATA, 0, SMOS_SERVER, peeks, NULL), 0);
    smos_shard_use(s, NULL);
    commit(s, box);
    run_to_end(s, t);
    CHECK_STR(read_bytes, "abcdefghi");
}

static void reads_at_end(void *self, const smos_call_t *c)
{
    char buffer[16] = "";
    uint64_t lost = 0;
    smos_buffer_info_t info;
    smos_range_t ranges[4];
    if (c->packet->payload_len != 3) return;
    CHECK_EQ(api->buffer_info(E(self), c->sock, c->flow, SMOS_SERVER, &info), 0);
    CHECK_EQ(info.init_seq, 101);
    CHECK_EQ(info.next, 8);
    CHECK_EQ(info.history_start, 4);
    CHECK_EQ(info.out_of_order, 3);
    CHECK_EQ(info.last, 13);
    CHECK_EQ(api->buffered(E(self), c->sock, c->flow, SMOS_SERVER, ranges, 4), 2);
    CHECK(ranges[0].start == 4 && ranges[0].end == 8 && ranges[1].start == 10 && ranges[1].end == 13);
    CHECK_EQ(api->buffered(E(self), c->sock, c->flow, SMOS_SERVER, ranges, 1), 1);
    CHECK_EQ(api->peek_at(E(self), c->sock, c->flow, SMOS_SERVER, buffer, 16, 11), 2);
    CHECK_STR(buffer, "ZZ");
    CHECK_EQ(api->peek_at(E(self), c->sock, c->flow, SMOS_SERVER, buffer, 2, 5), 2);
    CHECK(!memcmp(buffer, "22", 2));
    CHECK_EQ(api->peek_at(E(self), c->sock, c->flow, SMOS_SERVER, buffer, 2, 3), -ENODATA);
    CHECK_EQ(api->peek_at(E(self), c->sock, c->flow, SMOS_SERVER, buffer, 2, 8), -ENODATA);
    CHECK_EQ(api->peek(E(self), c->sock, c->flow, SMOS_SERVER, buffer, 16, &lost), 4);
    CHECK_EQ(lost, 4);
    CHECK(!memcmp(buffer, "2222", 4));
}

static void unread(void *self, const smos_call_t *c)
{
    (void)self;
    if (c->detail == SMOS_ERR_UNREAD) say("unread %u+%u", (unsigned)c->offset, (unsigned)c->length);
}

static void test_history_out_of_order_and_losses(void)
{
    began();
    talk_t *t = talk();
    handshake(t, 0);
    segment(t, 0, 0, SMOS__ACK, 101, 501, "1111");
    segment(t, 0, 0, SMOS__ACK, 105, 501, "2222");
    segment(t, 0, 0, SMOS__ACK, 111, 501, "ZZZ");
    smos_shard_t *s = shard_of_talk(t);
    smos_box_t *box = box_named(s, "history");
    CHECK_EQ(api->set_option(E(s), 0, 0, SMOS_SERVER, SMOS_OPT_HISTORY, 4), 0);
    CHECK_EQ(api->register_handler(E(s), 0, 0, SMOS_PKT_IN, SMOS_RECEIVER, SMOS_SERVER, reads_at_end, NULL), 0);
    CHECK_EQ(api->register_handler(E(s), 0, 0, SMOS_ERROR, 0, SMOS_SERVER, unread, NULL), 0);
    CHECK_EQ(api->set_context(E(s), 0, 0, &own), 0);
    CHECK(api->get_context(E(s), 0, 0) == &own);
    smos_shard_use(s, NULL);
    commit(s, box);
    run_to_end(s, t);
    CHECK_STR(trace, "unread 0+4");
}

/* ---- contexts, timers, raw sockets ---- */

static void contexts(void *self, const smos_call_t *c)
{
    if (c->event == SMOS_CONN_START) {
        CHECK(c->context == NULL);
        CHECK_EQ(api->set_context(E(self), c->sock, c->flow, (void *)(uintptr_t)(c->tuple->sport)), 0);
    } else {
        say("%u ", (unsigned)(uintptr_t)c->context);
    }
}

static void test_contexts_begin_empty_with_each_flow(void)
{
    began();
    talk_t *t = talk();
    for (int i = 0; i < 3; i++) handshake(t, i);
    smos_shard_t *s = shard_of_talk(t);
    smos_box_t *box = box_named(s, "contexts");
    CHECK_EQ(api->register_handler(E(s), 0, 0, SMOS_CONN_START, SMOS_SENDER, SMOS_BOTH, contexts, NULL), 0);
    CHECK_EQ(api->register_handler(E(s), 0, 0, SMOS_CONN_SETUP, 0, SMOS_BOTH, contexts, NULL), 0);
    smos_shard_use(s, NULL);
    commit(s, box);
    run_to_end(s, t);
    CHECK_STR(trace, "1000 1001 1002 ");
}

static uint64_t periodic;

static void tick(void *self, const smos_call_t *c)
{
    static int ticks;
    smos_shard_t *s = self;
    CHECK_EQ(c->event, SMOS_TIMER);
    CHECK(c->packet == NULL);
    say("%s@%d ", (const char *)c->arg, (int)((c->time_ns - INT64_C(1700000000) * 1000 * MS) / MS));
    if (*(const char *)c->arg == 'p' && ++ticks == 3) {
        CHECK_EQ(api->cancel_timer(E(s), periodic), 0);
        CHECK_EQ(api->cancel_timer(E(s), periodic), -ENOENT);
    }
}

static void arms(void *self, const smos_call_t *c)
{
    CHECK_EQ(api->set_timer(E(self), 0, 3 * MS, 2 * MS, tick, (void *)(uintptr_t)"p", &periodic), 0);
    CHECK_EQ(api->set_timer(E(self), c->flow, 4 * MS, 0, tick, (void *)(uintptr_t)"flow", NULL), 0);
    CHECK_EQ(api->set_timer(E(self), 0, -1, 0, tick, NULL, NULL), -EINVAL);
    CHECK_EQ(api->set_timer(E(self), 99999, 1, 0, tick, NULL, NULL), -ESTALE);
}

static void test_timers_on_packet_time(void)
{
    began();
    talk_t *t = talk();
    handshake(t, 0); /* at 1, 2, 3 ms */
    for (uint32_t i = 0; i < 8; i++) segment(t, 0, 0, SMOS__ACK, 101 + i, 501, "x");
    smos_shard_t *s = shard_of_talk(t);
    smos_box_t *box = box_named(s, "timers");
    CHECK_EQ(api->register_handler(E(s), 0, 0, SMOS_CONN_START, SMOS_SENDER, SMOS_BOTH, arms, NULL), 0);
    CHECK_EQ(api->set_timer(E(s), 0, 1 * MS, 0, tick, (void *)(uintptr_t)"init", NULL), 0); /* from the first packet on */
    smos_shard_use(s, NULL);
    commit(s, box);
    run_to_end(s, t);
    CHECK_STR(trace, "init@2 p@4 flow@5 p@6 p@8 ");
}

static void raw(void *self, const smos_call_t *c)
{
    (void)self;
    CHECK_EQ(c->flow, 0);
    say("%d", (int)c->packet->number);
}

static void test_raw_sockets_see_each_packet_once(void)
{
    for (int filtered = 0; filtered < 2; filtered++) {
        began();
        talk_t *t = talk();
        handshake(t, 0);
        handshake(t, 1);
        smos_shard_t *s = shard_of_talk(t);
        smos_box_t *box = box_named(s, "raw");
        smos_sock_t sock;
        CHECK_EQ(api->socket(E(s), SMOS_RAW, &sock), 0);
        if (filtered) CHECK_EQ(api->bind(E(s), sock, "tcp port 1001", NULL), 0);
        CHECK_EQ(api->register_handler(E(s), sock, 0, SMOS_PKT_IN, 0, SMOS_BOTH, raw, NULL), 0);
        smos_shard_use(s, NULL);
        commit(s, box);
        run_to_end(s, t);
        CHECK_STR(trace, filtered ? "456" : "123456");
    }
}

/* ---- stopping ---- */

static void stops(void *self, const smos_call_t *c)
{
    say("%c", (char)(uintptr_t)c->arg);
    if (c->offset == 0) CHECK_EQ(api->stop_socket(E(self), own, c->flow, SMOS_BOTH), 0);
    if (c->offset == 2) CHECK_EQ(api->stop(E(self), c->flow, SMOS_BOTH), 0);
}

static void test_stopping_one_socket_and_all(void)
{
    began();
    talk_t *t = talk();
    handshake(t, 0);
    for (uint32_t k = 0; k < 5; k++) segment(t, 0, 0, SMOS__ACK, 101 + k, 501, "x");
    segment(t, 0, 0, SMOS__ACK, 110, 501, "far");
    smos_shard_t *s = shard_of_talk(t);
    smos_box_t *box = box_named(s, "stops");
    CHECK_EQ(api->socket(E(s), SMOS_STREAM, &own), 0);
    CHECK_EQ(api->register_handler(E(s), 0, 0, SMOS_NEW_DATA, 0, SMOS_SERVER, stops, (void *)(uintptr_t)'m'), 0);
    CHECK_EQ(api->register_handler(E(s), own, 0, SMOS_NEW_DATA, 0, SMOS_SERVER, stops, (void *)(uintptr_t)'o'), 0);
    smos_shard_use(s, NULL);
    commit(s, box);
    while (!(smos_shard_run(s, 1000000000) & SMOS_RUN_END)) continue;
    CHECK_EQ(smos__pool_used(s->arena.pool), 0); /* nobody wants the bytes behind the hole */
    run_to_end(s, t);
    CHECK_STR(trace, "momm");
}

/* ---- hostile arguments ---- */

static void hostile(void *self, const smos_call_t *c)
{
    smos_engine_t *e = E(self);
    static const smos_sock_t SOCKS[] = {0, 1, 63, 64, 255, 256, 0x80000000, UINT32_MAX};
    const smos_flow_t flows[] = {0, c->flow, c->flow + 1, c->flow ^ (1ull << 32), UINT64_MAX, 1};
    static const int NUMBERS[] = {-1, 0, 1, 2, 3, 4, 100, INT32_MAX, INT32_MIN};
    uint64_t value;
    char buffer[8];
    smos_range_t ranges[2];
    smos_buffer_info_t info;
    smos_flow_info_t flow_info;
    for (size_t k = 0; k < sizeof SOCKS / sizeof *SOCKS; k++) {
        for (size_t f = 0; f < sizeof flows / sizeof *flows; f++) {
            for (size_t n = 0; n < sizeof NUMBERS / sizeof *NUMBERS; n++) {
                smos_sock_t k_ = SOCKS[k];
                smos_flow_t f_ = flows[f];
                int n_ = NUMBERS[n];
                api->register_handler(e, k_, f_, (uint32_t)n_, n_, n_, n_ & 1 ? NULL : hostile, NULL);
                api->unregister_handler(e, k_, f_, (uint32_t)n_, NULL, NULL);
                api->set_option(e, k_, f_, n_, n_, (uint64_t)(int64_t)n_);
                api->get_option(e, k_, f_, n_, n_, n_ & 1 ? NULL : &value);
                api->peek(e, k_, f_, n_, n_ & 1 ? NULL : buffer, n_ < 0 ? SIZE_MAX : 8, NULL);
                api->peek_at(e, k_, f_, n_, n_ & 1 ? NULL : buffer, n_ < 0 ? SIZE_MAX : 8, (uint64_t)(int64_t)n_);
                api->buffered(e, k_, f_, n_, n_ & 1 ? NULL : ranges, n_ < 3 ? n_ : 2);
                api->buffer_info(e, k_, f_, n_, n_ & 1 ? NULL : &info);
                api->stop_socket(e, k_, f_, n_ == 2 ? 100 : n_);
                api->set_context(e, k_, f_, NULL);
                api->get_context(e, k_, f_);
                api->bind(e, k_, n_ & 1 ? "(" : NULL, NULL);
                api->state(e, f_);
                api->flow_info(e, f_, n_ & 1 ? NULL : &flow_info);
                api->set_timer(e, f_, n_, n_, n_ & 1 ? NULL : hostile, NULL, NULL);
                api->cancel_timer(e, f_);
            }
        }
        if (SOCKS[k]) api->close(e, SOCKS[k], 0);
    }
    CHECK_EQ(api->socket(e, 7, &own), -EINVAL);
    CHECK_EQ(api->socket(e, SMOS_STREAM, NULL), -EINVAL);
    CHECK_EQ(api->socket(NULL, SMOS_STREAM, &own), -EINVAL);
    CHECK_EQ(api->define_event(e, SMOS_PKT_IN, NULL, NULL, 0, NULL), -EINVAL);
    CHECK_EQ(api->define_event(e, SMOS_PKT_IN, sort, NULL, 5, &own), -EINVAL);
    CHECK_EQ(api->raise_event(e, 64), -ENOENT);
    CHECK_EQ(api->peek(NULL, 0, 0, 0, NULL, 0, NULL), -EINVAL);
    say("survived ");
    api->unregister_handler(e, 0, c->flow, SMOS_PKT_IN, NULL, NULL);
}

static void test_hostile_arguments(void)
{
    began();
    talk_t *t = talk();
    handshake(t, 0);
    segment(t, 0, 0, SMOS__ACK, 101, 501, "bytes");
    smos_shard_t *s = shard_of_talk(t);
    smos_box_t *box = box_named(s, "hostile");
    CHECK_EQ(api->register_handler(E(s), 0, 0, SMOS_PKT_IN, SMOS_RECEIVER, SMOS_BOTH, hostile, NULL), 0);
    smos_shard_use(s, NULL);
    CHECK_EQ(api->socket(E(s), SMOS_STREAM, &own), -EPERM); /* nobody's call */
    CHECK_STR(api->last_error(E(s)), "");
    commit(s, box);
    run_to_end(s, t);
    CHECK(strstr(trace, "survived") != NULL);
}

/* ---- replacing a module ---- */

static void counts(void *self, const smos_call_t *c)
{
    (void)self;
    say("%c%d", (char)(uintptr_t)c->arg, c->existing);
}

static void test_another_version_with_another_filter(void)
{
    began();
    talk_t *t = talk();
    handshake(t, 0);
    handshake(t, 1);
    t->burst = 1;
    smos_shard_t *s = shard_of_talk(t);
    for (int version = 0; version < 2; version++) {
        smos_module_t m = {SMOS_MODULE_HEADER, .name = "version", .filter = version ? "tcp port 1001" : "tcp port 1000"};
        smos_box_t *box = module_of(s, &m);
        smos_shard_use(s, box);
        CHECK_EQ(api->register_handler(E(s), 0, 0, SMOS_PKT_IN, SMOS_SENDER, SMOS_BOTH, counts, (void *)(uintptr_t)('a' + version)), 0);
        smos_shard_use(s, NULL);
        commit(s, box);
        if (version) break;
        for (int i = 0; i < 5; i++) smos_shard_run(s, 0);
    }
    run_to_end(s, t);
    CHECK_STR(trace, "a0a0a0b1"); /* the first connection is left, the second is joined at its next packet */
}

int main(void)
{
    RUN(test_order_of_a_connection);
    RUN(test_chain_order_and_filters);
    RUN(test_close_in_a_callback);
    RUN(test_user_defined_events);
    RUN(test_events_with_several_outcomes);
    RUN(test_registering_on_one_flow);
    RUN(test_equal_registrations_are_one_set);
    RUN(test_peek_follows_its_cursor);
    RUN(test_history_out_of_order_and_losses);
    RUN(test_contexts_begin_empty_with_each_flow);
    RUN(test_timers_on_packet_time);
    RUN(test_raw_sockets_see_each_packet_once);
    RUN(test_stopping_one_socket_and_all);
    RUN(test_hostile_arguments);
    RUN(test_another_version_with_another_filter);
    return 0;
}
