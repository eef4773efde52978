/* The short ways to an event's only handler, or its only filter and handler: what happens in between counts as on the long one. */
#include "conversation.h"

#define E(call) smos_shard_engine((smos_shard_t *)(call))

static const smos_api_t *api;
static char trace[256];
static smos_sock_t own, other;
static uint32_t event, another;

static void say(const char *text) { strncat(trace, text, sizeof trace - strlen(trace) - 1); }

/* A shard over a handshake and these segments of a byte each, and a module to be set up as in init(). */
static talk_t *talk_of(int segments)
{
    api = smos_shard_api();
    trace[0] = '\0';
    talk_t *t = talk();
    handshake(t, 0);
    for (int i = 0; i < segments; i++) segment(t, 0, 0, SMOS__ACK, 101 + (uint32_t)i, 501, "x");
    return t;
}

static smos_box_t *box_of(smos_shard_t *s)
{
    smos_module_t m = {SMOS_MODULE_HEADER, .name = "short"};
    smos_box_t *box = module_of(s, &m);
    smos_shard_use(s, box);
    return box;
}

static const smos_stats_module_t *stats_of(smos_shard_t *s)
{
    const smos_stats_header_t *h = smos_shard_stats(s);
    return (const smos_stats_module_t *)(const void *)((const char *)h + h->modules_offset);
}

static void go(smos_shard_t *s, smos_box_t *box)
{
    smos_shard_use(s, NULL);
    commit(s, box);
    while (!(smos_shard_run(s, 0) & SMOS_RUN_END)) {
    }
    smos_shard_finish(s, SMOS_END_CAPTURE, 0);
}

/* ---- what a module keeps, from the middle of a packet on ---- */

static void keeps(void *self, const smos_call_t *c)
{
    say(c->context ? (const char *)c->context : "-");
    CHECK_EQ(api->set_context(E(self), c->sock, c->flow, (void *)(uintptr_t)"k"), 0);
}

static void tells(void *self, const smos_call_t *c)
{
    (void)self;
    say(c->context ? (const char *)c->context : ".");
}

static int asks(void *self, const smos_call_t *c)
{
    keeps(self, c);
    return 1;
}

static void test_context_from_the_next_call_on(void)
{
    talk_t *t = talk_of(2);
    smos_shard_t *s = shard_of_talk(t);
    smos_box_t *box = box_of(s);
    CHECK_EQ(api->register_handler(E(s), 0, 0, SMOS_PKT_IN, SMOS_SENDER, SMOS_CLIENT, tells, NULL), 0);
    CHECK_EQ(api->register_handler(E(s), 0, 0, SMOS_NEW_DATA, 0, SMOS_SERVER, keeps, NULL), 0);
    go(s, box);
    CHECK_STR(trace, "...-kk"); /* SYN, ACK, and the first byte's packet come before; then its context is there for both events */
    run_to_end(s, t);
}

static void test_context_that_a_filter_sets(void)
{
    talk_t *t = talk_of(2);
    smos_shard_t *s = shard_of_talk(t);
    smos_box_t *box = box_of(s);
    CHECK_EQ(api->define_event(E(s), SMOS_NEW_DATA, asks, NULL, 0, &event), 0);
    CHECK_EQ(api->register_handler(E(s), 0, 0, event, 0, SMOS_SERVER, tells, NULL), 0);
    go(s, box);
    CHECK_STR(trace, "-kkk");
    run_to_end(s, t);
}

/* ---- sockets that are closed on the way ---- */

static int closes_itself(void *self, const smos_call_t *c)
{
    say("?");
    CHECK_EQ(api->close(E(self), c->sock, 0), 0);
    return 1;
}

static void closes_the_other(void *self, const smos_call_t *c)
{
    (void)c;
    say("!");
    (void)api->close(E(self), other, 0);
}

static void never(void *self, const smos_call_t *c)
{
    (void)self;
    (void)c;
    say("never");
}

static void test_filter_that_closes_its_socket(void)
{
    talk_t *t = talk_of(2);
    smos_shard_t *s = shard_of_talk(t);
    smos_box_t *box = box_of(s);
    CHECK_EQ(api->socket(E(s), SMOS_STREAM, &own), 0);
    CHECK_EQ(api->define_event(E(s), SMOS_NEW_DATA, closes_itself, NULL, 0, &event), 0);
    CHECK_EQ(api->register_handler(E(s), own, 0, event, 0, SMOS_SERVER, never, NULL), 0);
    go(s, box);
    CHECK_STR(trace, "?");
    run_to_end(s, t);
}

static void test_closed_before_its_only_handler(void)
{
    talk_t *t = talk_of(1);
    smos_shard_t *s = shard_of_talk(t);
    smos_box_t *box = box_of(s);
    CHECK_EQ(api->socket(E(s), SMOS_STREAM, &other), 0);
    CHECK_EQ(api->register_handler(E(s), 0, 0, SMOS_PKT_IN, SMOS_SENDER, SMOS_CLIENT, closes_the_other, NULL), 0);
    CHECK_EQ(api->register_handler(E(s), other, 0, SMOS_STATE_CHANGE, SMOS_SENDER, SMOS_CLIENT, never, NULL), 0); /* in the same packet */
    CHECK_EQ(api->register_handler(E(s), other, 0, SMOS_NEW_DATA, 0, SMOS_SERVER, never, NULL), 0);
    go(s, box);
    CHECK_STR(trace, "!!!");
    run_to_end(s, t);
}

/* ---- filters that drop, move the flow, or are gone ---- */

static int drops(void *self, const smos_call_t *c)
{
    say("d");
    if (c->packet->payload_len) CHECK_EQ(api->drop(E(self)), 0);
    return 1;
}

static void test_filter_that_drops(void)
{
    talk_t *t = talk_of(1);
    smos_shard_t *s = shard_of_talk(t);
    smos_box_t *box = box_of(s);
    CHECK_EQ(api->define_event(E(s), SMOS_PKT_IN, drops, NULL, 0, &event), 0);
    CHECK_EQ(api->register_handler(E(s), 0, 0, event, SMOS_SENDER, SMOS_CLIENT, tells, NULL), 0);
    CHECK_EQ(api->register_handler(E(s), 0, 0, SMOS_NEW_DATA, 0, SMOS_SERVER, never, NULL), 0);
    go(s, box);
    CHECK_STR(trace, "d.d.d");
    CHECK_EQ(stats_of(s)->drops, 1);
    run_to_end(s, t);
}

static int replaces(void *self, const smos_call_t *c)
{
    say("r");
    CHECK_EQ(api->unregister_handler(E(self), 0, c->flow, event, NULL, NULL), 0);
    CHECK_EQ(api->register_handler(E(self), 0, c->flow, SMOS_NEW_DATA, 0, SMOS_SERVER, keeps, NULL), 0);
    return 1;
}

static void test_filter_that_moves_its_flow(void)
{
    talk_t *t = talk_of(2);
    smos_shard_t *s = shard_of_talk(t);
    smos_box_t *box = box_of(s);
    CHECK_EQ(api->define_event(E(s), SMOS_NEW_DATA, replaces, NULL, 0, &event), 0);
    CHECK_EQ(api->register_handler(E(s), 0, 0, event, 0, SMOS_SERVER, tells, NULL), 0);
    go(s, box);
    CHECK_STR(trace, "r.-"); /* what is under way goes on as it was */
    run_to_end(s, t);
}

static int removes(void *self, const smos_call_t *c)
{
    (void)c;
    say("g");
    CHECK_EQ(api->remove_event(E(self), another), 0);
    return 1;
}

static void test_filter_that_is_gone(void)
{
    talk_t *t = talk_of(2);
    smos_shard_t *s = shard_of_talk(t);
    smos_box_t *box = box_of(s);
    CHECK_EQ(api->define_event(E(s), SMOS_NEW_DATA, removes, NULL, 0, &another), 0);
    CHECK_EQ(api->register_handler(E(s), 0, 0, another, 0, SMOS_SERVER, tells, NULL), 0);
    go(s, box);
    CHECK_STR(trace, "g."); /* not asked at the second byte */
    run_to_end(s, t);
}

/* ---- counts, of which one call in sixteen is timed ---- */

static void test_calls_are_counted_one_by_one(void)
{
    for (int segments = 10; segments < 50; segments++) {
        talk_t *t = talk_of(segments);
        smos_shard_t *s = shard_of_talk(t);
        smos_box_t *box = box_of(s);
        CHECK_EQ(api->register_handler(E(s), 0, 0, SMOS_NEW_DATA, 0, SMOS_SERVER, tells, NULL), 0);
        CHECK_EQ(api->register_handler(E(s), 0, 0, SMOS_PKT_IN, SMOS_SENDER, SMOS_CLIENT, tells, NULL), 0);
        go(s, box);
        CHECK_EQ(stats_of(s)->event_calls[SMOS_NEW_DATA], (uint64_t)segments);
        CHECK_EQ(stats_of(s)->event_calls[SMOS_PKT_IN], (uint64_t)segments + 2);
        CHECK_EQ(stats_of(s)->calls, 2 * (uint64_t)segments + 2);
        CHECK_EQ(stats_of(s)->cycles > 0, segments >= 14);
        run_to_end(s, t);
    }
}

int main(void)
{
    RUN(test_context_from_the_next_call_on);
    RUN(test_context_that_a_filter_sets);
    RUN(test_filter_that_closes_its_socket);
    RUN(test_closed_before_its_only_handler);
    RUN(test_filter_that_drops);
    RUN(test_filter_that_moves_its_flow);
    RUN(test_filter_that_is_gone);
    RUN(test_calls_are_counted_one_by_one);
    return 0;
}
