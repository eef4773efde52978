/* What happens at each bound: of a flow, of the worker, of the table; depth; streams that nobody wants any more; gaps; policies of networks. */
#include "conversation.h"
#include "tcp/pool.h"

static struct {
    char text[2][4096]; /* delivered, by receiving side; a gap is its length in brackets */
    uint32_t errors[8];
    int ends, gaps_at; /* number of the packet that told the first gap */
    uint64_t most;      /* bytes buffered at once */
} seen;

static smos_config_t config;
static int stop_side = -1;

static void on_event(void *self, const smos_call_t *call)
{
    smos_shard_t *s = self;
    char *text = call->side < 2 ? seen.text[call->side] : NULL;
    uint64_t used = smos__pool_used(s->arena.pool);
    if (used > seen.most) seen.most = used;
    if (call->event == SMOS_NEW_DATA) strncat(text, (const char *)call->data, call->length);
    if (call->event == SMOS_GAP) {
        sprintf(text + strlen(text), "[%d]", (int)call->length);
        if (!seen.gaps_at) seen.gaps_at = call->packet ? (int)call->packet->number : -1;
    }
    if (call->event == SMOS_ERROR) seen.errors[call->detail]++;
    if (call->event == SMOS_CONN_END && call->side == SMOS_CLIENT) seen.ends++;
    if (call->event == SMOS_CONN_SETUP && stop_side >= 0) smos_shard_api()->stop(smos_shard_engine(s), call->flow, stop_side);
}

static const smos_registration_t ALL[] = {
    {.event = SMOS_PKT_IN, .side = SMOS_BOTH, .hook = SMOS_RECEIVER, .handler = on_event}, {.event = SMOS_CONN_SETUP, .side = SMOS_BOTH, .handler = on_event},
    {.event = SMOS_NEW_DATA, .side = SMOS_BOTH, .handler = on_event}, {.event = SMOS_GAP, .side = SMOS_BOTH, .handler = on_event},
    {.event = SMOS_ERROR, .side = SMOS_BOTH, .handler = on_event}, {.event = SMOS_CONN_END, .side = SMOS_BOTH, .handler = on_event}, {.event = SMOS_EVENT_COUNT},
};
static const smos_module_t MODULE = {SMOS_MODULE_HEADER, .name = "watch", .registrations = ALL};

static talk_t *begin(void)
{
    smos_config_default(&config);
    CHECK_EQ(smos_config_memory(&config, 64 << 20), 0);
    config.checksums = 1;
    memset(&seen, 0, sizeof seen);
    stop_side = -1;
    return talk();
}

static smos_shard_t *shard;
static talk_t *port_done;

/* Runs the conversation; the shard is still there afterwards. */
static void run(talk_t *t)
{
    char error[SMOS_ERROR_SIZE];
    shard = smos_shard_create(&config, error);
    if (!shard) fprintf(stderr, "%s\n", error);
    CHECK(shard != NULL);
    shard->port = &t->port;
    commit(shard, module_of(shard, &MODULE));
    while (!(smos_shard_run(shard, 1000000000) & SMOS_RUN_END)) continue;
}

static void finish(talk_t *t) { run_to_end(shard, t); }

static void client(talk_t *t, uint32_t at, const char *text) { segment(t, 1, 0, SMOS__ACK, 101 + at, 501, text); }
static void acknowledge(talk_t *t, uint32_t up_to) { segment(t, 1, 1, SMOS__ACK, 501, 101 + up_to, ""); }

static void test_beyond_the_depth_nothing_is_done(void)
{
    talk_t *t = begin();
    config.depth = 6;
    handshake(t, 1);
    client(t, 0, "abcd");
    client(t, 4, "efgh"); /* two of these */
    client(t, 12, "mnop"); /* behind a hole: not kept */
    client(t, 8, "ijkl");
    segment(t, 1, 1, SMOS__ACK, 501, 117, "AB"); /* the other end goes on */
    run(t);
    CHECK_STR(seen.text[SMOS_SERVER], "abcdef");
    CHECK_STR(seen.text[SMOS_CLIENT], "AB");
    CHECK_EQ(seen.most, 0);
    CHECK_EQ(seen.errors[SMOS_ERR_DEPTH], 1);
    CHECK_EQ(shard->counters[SMOS__C_depth_reached], 1);
    finish(t);
    CHECK_STR(seen.text[SMOS_SERVER], "abcdef"); /* and no gap */
}

static void test_what_waits_is_forgotten_at_the_depth(void)
{
    talk_t *t = begin();
    config.depth = 6;
    handshake(t, 1);
    client(t, 4, "efghijkl");
    client(t, 20, "uvwx");
    client(t, 0, "abcd");
    client(t, 30, "zz");
    run(t);
    CHECK_STR(seen.text[SMOS_SERVER], "abcdef");
    CHECK_EQ(smos__pool_used(shard->arena.pool), 0);
    finish(t);
}

static void test_who_stops_listening_has_nothing_buffered(void)
{
    for (int side = 0; side < 3; side++) {
        talk_t *t = begin();
        stop_side = side;
        handshake(t, 1);
        client(t, 4, "efgh");
        run(t);
        CHECK_EQ(smos__pool_used(shard->arena.pool), side == SMOS_CLIENT ? SMOS__BLOCK_SMALL : 0);
        finish(t);
        t = begin();
        stop_side = side;
        handshake(t, 1);
        segment(t, 1, 1, SMOS__ACK, 505, 101, "EFGH");
        run(t);
        CHECK_EQ(smos__pool_used(shard->arena.pool), side == SMOS_SERVER ? SMOS__BLOCK_SMALL : 0);
        finish(t);
    }
}

static talk_t *more_than_fits(void)
{
    talk_t *t = begin();
    handshake(t, 1);
    client(t, 4, "efgh");
    client(t, 12, "mnop"); /* one byte too many */
    client(t, 0, "abcd");
    client(t, 8, "ijkl");
    client(t, 12, "mnop");
    client(t, 16, "qrst");
    return t;
}

static void at_the_flow_bound(uint8_t policy, const char *expected)
{
    talk_t *t = more_than_fits();
    config.flow_buffer = 7;
    config.flow_full = policy;
    run(t);
    CHECK(seen.errors[SMOS_ERR_FLOW_BUFFER] >= 1);
    CHECK_EQ(shard->counters[SMOS__C_full_flow_buffer], seen.errors[SMOS_ERR_FLOW_BUFFER]);
    CHECK_EQ(shard->counters[SMOS__C_full_worker_buffer], 0);
    CHECK_EQ(smos__pool_used(shard->arena.pool), 0);
    finish(t);
    CHECK_STR(seen.text[SMOS_SERVER], expected);
}

static void test_a_flow_s_bound(void)
{
    at_the_flow_bound(SMOS_FULL_SKIP, "[4]efgh[4]mnopqrst");
    at_the_flow_bound(SMOS_FULL_REFUSE, "abcdefghijklmnopqrst");
    at_the_flow_bound(SMOS_FULL_STOP, "");
}

static void test_a_flow_s_bound_in_segments(void)
{
    talk_t *t = more_than_fits();
    config.flow_segments = 1;
    config.flow_full = SMOS_FULL_REFUSE;
    run(t);
    CHECK_EQ(seen.errors[SMOS_ERR_FLOW_BUFFER], 1);
    finish(t);
    CHECK_STR(seen.text[SMOS_SERVER], "abcdefghijklmnopqrst");
}

/* The worker's buffer is one page of blocks: eight small ones; connections 2 to 9 hold them. */
static void at_the_worker_bound(uint8_t policy, const char *expected)
{
    talk_t *t = begin();
    config.buffer_bytes = SMOS__BLOCK_LARGE;
    config.worker_full = policy;
    for (int n = 2; n < 10; n++) {
        handshake(t, n);
        segment(t, n, 1, SMOS__ACK, 511, 101, "waits");
    }
    handshake(t, 1);
    client(t, 4, "efgh");
    client(t, 0, "abcd");
    client(t, 4, "efgh");
    client(t, 8, "ijkl");
    run(t);
    CHECK_EQ(seen.errors[SMOS_ERR_WORKER_BUFFER], 1);
    CHECK_EQ(shard->counters[SMOS__C_full_worker_buffer], 1);
    CHECK_STR(seen.text[SMOS_SERVER], expected);
    CHECK_EQ(smos__pool_used(shard->arena.pool), SMOS__BLOCK_LARGE);
    finish(t);
}

static void test_the_worker_s_bound(void)
{
    at_the_worker_bound(SMOS_FULL_SKIP, "[4]efghijkl");
    at_the_worker_bound(SMOS_FULL_REFUSE, "abcdefghijkl");
    at_the_worker_bound(SMOS_FULL_STOP, "");
}

static void test_a_full_table(void)
{
    for (uint8_t policy = 0; policy < 2; policy++) {
        talk_t *t = begin();
        config.max_flows = 4;
        config.table_full = policy;
        for (int n = 1; n <= 5; n++) handshake(t, n);
        client(t, 0, "first");
        run(t);
        CHECK_EQ(shard->arena.header->in_use, 4);
        CHECK_EQ(shard->counters[SMOS__C_table_refused], policy ? 3 : 0); /* each segment of the fifth handshake */
        CHECK_EQ(shard->counters[SMOS__C_drop_no_memory], policy ? 3 : 0);
        CHECK_EQ(seen.errors[SMOS_ERR_TABLE], policy ? 0 : 2); /* the fifth's, and the first's that comes back midstream */
        CHECK_EQ(shard->counters[SMOS__C_end_evicted], seen.errors[SMOS_ERR_TABLE]);
        CHECK_STR(seen.text[SMOS_SERVER], "first");
        finish(t);
    }
}

static void test_an_acknowledged_gap_is_told_at_once_or_with_what_follows(void)
{
    for (uint8_t when = SMOS_GAPS_AT_ONCE; when <= SMOS_GAPS_WITH_DATA; when++) {
        talk_t *t = begin();
        config.acked_gaps = when;
        handshake(t, 1);
        client(t, 0, "abcd");
        acknowledge(t, 10);   /* the capture does not have six bytes: packet 5 */
        acknowledge(t, 10);
        client(t, 10, "klmn"); /* packet 7 */
        goodbye(t, 1, 14, 0);
        run(t);
        CHECK_EQ(seen.gaps_at, when == SMOS_GAPS_AT_ONCE ? 5 : 7);
        CHECK_STR(seen.text[SMOS_SERVER], "abcd[6]klmn");
        finish(t);
        CHECK_STR(seen.text[SMOS_SERVER], "abcd[6]klmn");
    }
}

/* Nothing is missed where all that was acknowledged was seen: handshakes, FINs, one side only. */
static void test_what_was_seen_is_no_gap(void)
{
    talk_t *t = begin();
    config.live = 1; /* gaps at once */
    handshake(t, 1);
    client(t, 0, "abcd");
    acknowledge(t, 4);
    goodbye(t, 1, 4, 0);
    segment(t, 2, 1, SMOS__ACK, 900, 7000, "AB"); /* of the second only one end is heard */
    segment(t, 2, 1, SMOS__ACK, 902, 7100, "CD");
    run(t);
    finish(t);
    CHECK_EQ(seen.gaps_at, 0);
    CHECK_STR(seen.text[SMOS_SERVER], "abcdABCD");
}

static smos_prefix_policy_t network(int bits, uint32_t address, uint8_t policy)
{
    smos_prefix_policy_t p = {.bits = (uint8_t)(96 + bits), .version = 4, .policy = policy};
    p.address[10] = p.address[11] = 0xff;
    put_be(p.address + 12, address, 4);
    return p;
}

/* 10.0.0.1 is the client: what the server sends is put together by that network's policy, and the other way about. */
static void test_overlaps_by_network(void)
{
    talk_t *t = begin();
    config.overlap_prefixes[0] = network(8, 0x0a000000, SMOS__OVERLAP_FIRST);
    config.overlap_prefixes[1] = network(32, 0x0a000002, SMOS__OVERLAP_LAST);
    config.overlap_prefixes[2] = network(31, 0x0a000002, SMOS__OVERLAP_FIRST);
    config.overlap_prefix_count = 3;
    config.overlap_policy = SMOS__OVERLAP_LAST; /* neither's */
    handshake(t, 1);
    client(t, 4, "old!");
    client(t, 4, "new!");
    client(t, 0, "abcd");
    segment(t, 1, 1, SMOS__ACK, 505, 109, "old!");
    segment(t, 1, 1, SMOS__ACK, 505, 109, "new!");
    segment(t, 1, 1, SMOS__ACK, 501, 109, "ABCD");
    run(t);
    finish(t);
    CHECK_STR(seen.text[SMOS_SERVER], "abcdnew!");
    CHECK_STR(seen.text[SMOS_CLIENT], "ABCDold!");
}

static void test_a_policy_that_is_none_is_refused(void)
{
    char error[SMOS_ERROR_SIZE] = "";
    free(begin());
    config.overlap_prefixes[0] = network(8, 0x0a000000, SMOS__OVERLAP_POLICIES);
    config.overlap_prefix_count = 1;
    CHECK(smos_shard_create(&config, error) == NULL);
    CHECK(error[0]);
    config.overlap_prefix_count = SMOS_MAX_PREFIXES + 1;
    CHECK(smos_shard_create(&config, error) == NULL);
}

/* Time goes on by `seconds` while connection 1, which is established, sends a byte each half second. */
static uint32_t wait_seconds(talk_t *t, uint32_t sent, int seconds)
{
    for (int i = 0; i < 2 * seconds; i++) {
        t->now_ns += 499 * MS;
        segment(t, 1, 0, SMOS__ACK, 101 + sent++, 501, "x");
    }
    return sent;
}

/* Of 100 slots, `silent` are taken by SYNs without an answer and `idle` by connections that say nothing more; then `seconds` go by. */
static void fill(int silent, int idle, int seconds, uint8_t adaptive)
{
    talk_t *t = begin();
    t->burst = 1;
    config.max_flows = 100;
    config.live = 1;
    config.timeout_syn_ns = 60 * 1000 * MS;
    config.timeout_established_ns = 100 * 1000 * MS;
    config.adaptive = adaptive;
    handshake(t, 1);
    for (int n = 0; n < idle; n++) handshake(t, 100 + n);
    for (int n = 0; n < silent; n++) segment(t, 300 + n, 0, SMOS__SYN, 100, 0, "");
    wait_seconds(t, 0, seconds);
    run(t);
    CHECK_EQ(shard->counters[SMOS__C_end_evicted], 0);
    CHECK_EQ(shard->counters[SMOS__C_end_idle], (uint64_t)(seen.ends));
    port_done = t;
}

static uint64_t early(void)
{
    uint64_t n = shard->counters[SMOS__C_end_idle_early];
    finish(port_done);
    return n;
}

static void test_timeouts_get_shorter_as_the_table_fills(void)
{
    fill(50, 5, 50, 60);
    CHECK_EQ(shard->counters[SMOS__C_end_idle], 0); /* 56 per cent: as configured */
    CHECK_EQ(early(), 0);
    fill(50, 5, 70, 60);
    CHECK_EQ(shard->counters[SMOS__C_end_idle], 50);
    CHECK_EQ(early(), 0);
    fill(90, 5, 20, 60);
    CHECK(shard->arena.header->in_use > 50); /* until the table is emptier again, and no further */
    CHECK(shard->arena.header->in_use < 90);
    CHECK_EQ(shard->counters[SMOS__C_end_idle], shard->counters[SMOS__C_end_idle_early]);
    CHECK(early() > 10);
    fill(90, 5, 20, 0);
    CHECK_EQ(early(), 0);
    fill(90, 5, 50, 100);
    CHECK_EQ(early(), 0);
}

/* Connections are collected early only when half-open flows are not what fills the table, and later than these. */
static void test_half_open_flows_go_first(void)
{
    fill(45, 50, 40, 60);
    uint32_t established = 0;
    for (uint32_t i = 0; i < shard->arena.header->high_water; i++) established += shard->arena.hot[i].class_ == SMOS__CLASS_ESTABLISHED;
    CHECK_EQ(established, 51);
    CHECK(early() > 10);
    fill(0, 95, 20, 60);
    CHECK_EQ(early(), 0);
    fill(0, 95, 70, 60);
    CHECK(early() > 0);
}

int main(void)
{
    RUN(test_beyond_the_depth_nothing_is_done);
    RUN(test_what_waits_is_forgotten_at_the_depth);
    RUN(test_who_stops_listening_has_nothing_buffered);
    RUN(test_a_flow_s_bound);
    RUN(test_a_flow_s_bound_in_segments);
    RUN(test_the_worker_s_bound);
    RUN(test_a_full_table);
    RUN(test_an_acknowledged_gap_is_told_at_once_or_with_what_follows);
    RUN(test_what_was_seen_is_no_gap);
    RUN(test_overlaps_by_network);
    RUN(test_a_policy_that_is_none_is_refused);
    RUN(test_timeouts_get_shorter_as_the_table_fills);
    RUN(test_half_open_flows_go_first);
    return 0;
}
