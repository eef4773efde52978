/* More than 4 GiB in one direction of a flow: offsets, counts and gaps go on where sequence numbers have wrapped. */
#include "conversation.h"

#define PAYLOAD 65000u
#define SEGMENTS 70000u /* 4.24 GiB */

#define FIRST 0xfffffff1u /* its sequence number */

/* A connection that sends one buffer again and again: frames are made when they are asked for. An acknowledgement comes between the two segments of a pair. */
typedef struct sender {
    smos__port_t port;
    uint8_t frame[2][14 + 40 + PAYLOAD], ack[54];
    const smos__frame_t *opening; /* frames before it */
    int opens;
    uint64_t step;
    bool swapped; /* the second segment of each pair comes first */
} sender_t;

static uint64_t next, sum, gaps;

static void on_data(void *self, const smos_call_t *call)
{
    (void)self;
    CHECK_EQ(call->offset, next);
    next += call->length;
    if (call->event == SMOS_GAP)
        gaps += call->length;
    else
        sum += call->data[0];
}

static const smos_registration_t DATA[] = {
    {.event = SMOS_NEW_DATA, .side = SMOS_SERVER, .handler = on_data}, {.event = SMOS_GAP, .side = SMOS_SERVER, .handler = on_data}, {.event = SMOS_EVENT_COUNT}};
static const smos_module_t MODULE = {SMOS_MODULE_HEADER, .name = "large", .registrations = DATA};

static void fill(smos__frame_t *f, uint8_t *data, uint32_t size, uint64_t segment)
{
    *f = (smos__frame_t){.data = data, .caplen = size, .len = size, .time_ns = INT64_C(1700000000) * 1000 * MS + (int64_t)(segment + 100) * MS, .number = 2 * segment + 4, .linktype = 1};
}

static void fill_data(sender_t *s, smos__frame_t *f, int which, uint64_t segment)
{
    uint8_t *data = s->frame[which];
    put_be(data + 14 + 20 + 4, FIRST + (uint32_t)(segment * PAYLOAD), 4);
    data[54] = (uint8_t)segment;
    fill(f, data, sizeof s->frame[0], segment);
}

static int receive(smos__port_t *port, smos__frame_t *burst, int max)
{
    sender_t *s = (sender_t *)port;
    (void)max;
    if (s->opens) {
        int n = s->opens;
        memcpy(burst, s->opening, (size_t)n * sizeof *burst);
        s->opens = 0;
        return n;
    }
    if (s->step >= SEGMENTS) return SMOS__PORT_END;
    uint64_t pair = s->step;
    fill_data(s, &burst[0], 0, pair + s->swapped);
    put_be(s->ack + 14 + 20 + 8, FIRST + (uint32_t)((pair + !s->swapped) * PAYLOAD), 4); /* what is contiguous */
    fill(&burst[1], s->ack, sizeof s->ack, pair);
    fill_data(s, &burst[2], 1, pair + !s->swapped);
    s->step += 2;
    return 3;
}

static void close_port(smos__port_t *port) { (void)port; }

static void send_all(bool handshake, bool swapped)
{
    static sender_t sender;
    static smos_flow_info_t last;
    const smos_flow_info_t *records;
    talk_t *t = talk();
    segment(t, 1, 0, SMOS__ACK, 0, 501, ""); /* the shapes of all */
    segment(t, 1, 1, SMOS__ACK, 501, 0, "");
    segment(t, 1, 0, SMOS__SYN, FIRST - 1, 0, "");
    segment(t, 1, 1, SMOS__SYN | SMOS__ACK, 500, FIRST, "");
    segment(t, 1, 0, SMOS__ACK, FIRST, 501, "");
    for (int i = 0; i < t->count; i++) put_be((uint8_t *)(uintptr_t)t->frames[i].data + 14 + 20 + 14, 0xffff, 2);
    memset(&sender, 0, sizeof sender);
    sender.port = (smos__port_t){.receive = receive, .close = close_port, .fd = -1, .ends = 1};
    sender.opening = t->frames + 2;
    sender.opens = handshake ? 3 : 0;
    sender.swapped = swapped;
    for (int i = 0; i < 2; i++) {
        memcpy(sender.frame[i], t->frames[0].data, 54);
        put_be(sender.frame[i] + 16, 40 + PAYLOAD, 2);
    }
    memcpy(sender.ack, t->frames[1].data, 54);
    char error[SMOS_ERROR_SIZE];
    smos_config_t config;
    smos_config_default(&config);
    CHECK_EQ(smos_config_memory(&config, 32 << 20), 0);
    config.checksums = config.records = 1;
    smos_shard_t *s = smos_shard_create(&config, error);
    CHECK(s != NULL);
    s->port = &sender.port;
    commit(s, module_of(s, &MODULE));
    next = sum = gaps = 0;
    while (!(smos_shard_run(s, INT64_MAX) & SMOS_RUN_END)) continue;
    while (!(smos_shard_finish(s, SMOS_END_CAPTURE, 0) & SMOS_RUN_END)) continue;
    CHECK_EQ(smos_shard_take_records(s, &records), 1);
    last = records[0];
    /* Midstream, what came before the first byte seen is not delivered. */
    uint64_t first = swapped && !handshake ? 1 : 0;
    CHECK_EQ(next, (SEGMENTS - first) * (uint64_t)PAYLOAD);
    CHECK_EQ(gaps, 0);
    CHECK_EQ(last.side[0].stream_bytes, next);
    CHECK_EQ(last.side[0].stream_span, next);
    CHECK_EQ(last.side[0].payload_bytes, SEGMENTS * (uint64_t)PAYLOAD);
    CHECK_EQ(last.side[0].missing_bytes, 0);
    CHECK_EQ(last.side[0].retransmits, 0);
    CHECK_EQ(last.side[0].out_of_order, swapped ? SEGMENTS / 2 : 0);
    /* Of all anomalies none but that the first two came in the wrong order where no SYN tells. */
    for (int i = 0; i < SMOS__ANOMALY_COUNT; i++) CHECK_EQ(s->counters[SMOS__C_FIXED + i], i == SMOS__ANOMALY_TCP_BEFORE_BASE ? first : 0);
    uint64_t expected = 0;
    for (uint64_t i = first; i < SEGMENTS; i++) expected += (uint8_t)i;
    CHECK(sum >= expected); /* a segment may be delivered in two views */
    smos_shard_destroy(s);
    talk_close(&t->port);
    free(t);
}

static void test_in_order(void) { send_all(true, false); }
static void test_each_pair_swapped(void) { send_all(true, true); }
static void test_midstream(void) { send_all(false, false); }
static void test_midstream_each_pair_swapped(void) { send_all(false, true); }

/* Acknowledgements almost 1 GiB beyond what was seen: what is missing is counted beyond 32 bits. */
static void test_gaps_of_more_than_4_gib(void)
{
    const uint32_t far = (1u << 30) - 1;
    const smos_flow_info_t *records;
    talk_t *t = talk();
    handshake(t, 1);
    segment(t, 1, 0, SMOS__ACK, 101, 501, "abcd");
    for (uint32_t i = 0; i < 6; i++) {
        uint32_t after = 105 + (i + 1) * far + 4 * i;
        segment(t, 1, 1, SMOS__ACK, 501, after, "");
        segment(t, 1, 0, SMOS__ACK, after, 501, "efgh");
    }
    smos_shard_t *s = shard_of_talk(t);
    smos_shard_set_publish(s, SMOS_PUBLISH_FLOWS);
    s->tcp.gaps_at_once = 1;
    commit(s, module_of(s, &MODULE));
    next = gaps = 0;
    while (!(smos_shard_run(s, INT64_MAX) & SMOS_RUN_END)) continue;
    while (!(smos_shard_finish(s, SMOS_END_CAPTURE, 0) & SMOS_RUN_END)) continue;
    CHECK_EQ(smos_shard_take_records(s, &records), 1);
    CHECK_EQ(records[0].side[0].missing_bytes, 6ull * far);
    CHECK_EQ(records[0].side[0].stream_bytes, 28);
    CHECK_EQ(s->counters[SMOS__C_missing_bytes], 6ull * far);
    CHECK_EQ(gaps, 6ull * far);
    CHECK_EQ(next, 6ull * far + 28);
    run_to_end(s, t);
}

int main(void)
{
    RUN(test_in_order);
    RUN(test_each_pair_swapped);
    RUN(test_midstream);
    RUN(test_midstream_each_pair_swapped);
    RUN(test_gaps_of_more_than_4_gib);
    return 0;
}
