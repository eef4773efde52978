/* More than 4 GiB in one direction of a flow: offsets, counts and gaps go on where sequence numbers have wrapped. */
#include "conversation.h"

#define PAYLOAD 65000u
#define SEGMENTS 70000u /* 4.24 GiB */

/* A connection that sends one buffer again and again: frames are made when they are asked for. */
typedef struct sender {
    smos__port_t port;
    uint8_t frame[2][14 + 40 + PAYLOAD];
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

static void fill(sender_t *s, smos__frame_t *f, int which, uint64_t segment)
{
    uint8_t *data = s->frame[which];
    put_be(data + 14 + 20 + 4, 0xfffffff0u + 1 + (uint32_t)(segment * PAYLOAD), 4);
    data[54] = (uint8_t)segment;
    *f = (smos__frame_t){.data = data, .caplen = sizeof s->frame[0], .len = sizeof s->frame[0], .time_ns = 1000000000 + (int64_t)(segment + 1) * 1000, .number = segment + 4, .linktype = 1};
}

static int receive(smos__port_t *port, smos__frame_t *burst, int max)
{
    sender_t *s = (sender_t *)port;
    (void)max;
    if (s->step >= SEGMENTS) return SMOS__PORT_END;
    fill(s, &burst[0], 0, s->step + s->swapped);
    fill(s, &burst[1], 1, s->step + !s->swapped);
    s->step += 2;
    return 2;
}

static void close_port(smos__port_t *port) { (void)port; }

static void send_all(bool swapped)
{
    static sender_t sender;
    static smos_flow_info_t last;
    const smos_flow_info_t *records;
    talk_t *t = talk();
    /* Frame 0 is the shape of all. */
    segment(t, 1, 0, SMOS__ACK, 0, 501, "");
    memset(&sender, 0, sizeof sender);
    sender.port = (smos__port_t){.receive = receive, .close = close_port, .fd = -1, .ends = 1};
    sender.swapped = swapped;
    for (int i = 0; i < 2; i++) {
        memcpy(sender.frame[i], t->frames[0].data, 54);
        put_be(sender.frame[i] + 16, 40 + PAYLOAD, 2);
    }
    char error[SMOS_ERROR_SIZE];
    smos_config_t config;
    smos_config_default(&config);
    CHECK_EQ(smos_config_memory(&config, 32 << 20), 0);
    config.checksums = config.records = 1;
    smos_shard_t *s = smos_shard_create(&config, error);
    CHECK(s != NULL);
    s->port = &sender.port;
    commit(s, module_of(s, &MODULE));
    next = sum = 0;
    /* It begins midstream; where its first two segments are swapped, with the second. */
    if (swapped) sender.step = SEGMENTS % 2;
    while (!(smos_shard_run(s, INT64_MAX) & SMOS_RUN_END)) continue;
    while (!(smos_shard_finish(s, SMOS_END_CAPTURE, 0) & SMOS_RUN_END)) continue;
    CHECK_EQ(smos_shard_take_records(s, &records), 1);
    last = records[0];
    uint64_t first = swapped ? 1 : 0; /* what came before the first byte seen is not delivered */
    CHECK_EQ(next, (SEGMENTS - first) * (uint64_t)PAYLOAD);
    CHECK_EQ(last.side[0].stream_bytes, next);
    CHECK_EQ(last.side[0].stream_span, next);
    CHECK_EQ(last.side[0].payload_bytes, SEGMENTS * (uint64_t)PAYLOAD);
    CHECK_EQ(last.side[0].missing_bytes, 0);
    uint64_t expected = 0;
    for (uint64_t i = first; i < SEGMENTS; i++) expected += (uint8_t)i;
    CHECK(sum >= expected); /* a segment may be delivered in two views */
    smos_shard_destroy(s);
    talk_close(&t->port);
    free(t);
}

static void test_in_order(void) { send_all(false); }
static void test_each_pair_swapped(void) { send_all(true); }

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
    RUN(test_gaps_of_more_than_4_gib);
    return 0;
}
