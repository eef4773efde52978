/* The defects of mOS that show only in what leaves: one test each, named after it (the others: tests/test_mos_faults.py and test_mos_faults_api.py). */
#include <errno.h>

#include "conversation.h"

#define MANY 300

typedef struct left {
    int end; /* of the port: the client is at 0, the server at 1 */
    uint32_t seq, ack;
    uint8_t flags;
    char text[1500];
} left_t;

static left_t out[MANY + 16];
static int outs;
static const smos_api_t *api;
#define ENGINE smos_shard_engine(self)

static uint32_t get(const uint8_t *p, int n)
{
    uint32_t v = 0;
    while (n--) v = v << 8 | *p++;
    return v;
}

static void leave(int end, const uint8_t *frame)
{
    CHECK(outs < MANY + 16);
    const uint8_t *ip = frame + 14, *tcp = ip + 20;
    uint32_t header = (uint32_t)(tcp[12] >> 4) * 4, length = get(ip + 2, 2) - 20 - header;
    left_t *l = &out[outs++];
    CHECK(length < sizeof l->text);
    *l = (left_t){.end = end, .seq = get(tcp + 4, 4), .ack = get(tcp + 8, 4), .flags = tcp[13]};
    memcpy(l->text, tcp + header, length);
}

static void forward(smos__port_t *p, smos__frame_t *f) { p->stats.forwarded++, leave(!f->end, f->data); }
static void drop(smos__port_t *p, smos__frame_t *f) { (void)p, (void)f; }
static void flush(smos__port_t *p) { (void)p; }

static int send_frame(smos__port_t *p, int end, const uint8_t *data, uint32_t length, const smos__frame_t *like)
{
    (void)p, (void)length, (void)like;
    leave(end, data);
    return 0;
}

static talk_t *inline_talk(void)
{
    talk_t *t = talk();
    t->port.forward = forward, t->port.drop = drop, t->port.send = send_frame, t->port.flush = flush;
    t->port.ends = 2;
    outs = 0;
    return t;
}

static void run_with(talk_t *t, smos_handler_t handler, int hook)
{
    for (int i = 0; i < t->count; i++) t->frames[i].end = t->frames[i].data[14 + 15] == 2; /* from 10.0.0.2 */
    api = smos_shard_api();
    smos_shard_t *s = shard_of_talk(t);
    s->config.checksums = 1;
    smos_module_t m = {SMOS_MODULE_HEADER, .name = "faults"};
    smos_box_t *box = module_of(s, &m);
    smos_shard_use(s, box);
    CHECK_EQ(api->register_handler(smos_shard_engine(s), 0, 0, SMOS_PKT_IN, hook, SMOS_BOTH, handler, NULL), 0);
    smos_shard_use(s, NULL);
    commit(s, box);
    run_to_end(s, t);
}

static void nothing(void *self, const smos_call_t *c) { (void)self, (void)c; }

/* More than 64 packets of a round were dropped, and not counted. */
static void test_fault_21_all_of_a_burst_leaves_in_order(void)
{
    talk_t *t = inline_talk();
    for (int i = 0; i < MANY; i++) segment(t, i, 0, SMOS__SYN, 100u + (uint32_t)i, 0, "");
    run_with(t, nothing, SMOS_SENDER);
    CHECK_EQ(outs, MANY);
    for (int i = 0; i < MANY; i++) CHECK_EQ(out[i].seq, 100u + (uint32_t)i);
}

static void number_it(void *self, const smos_call_t *c)
{
    char text[16];
    if (c->packet->payload_len != 6) return;
    snprintf(text, sizeof text, "<%04u>", (unsigned)c->packet->number);
    CHECK_EQ(api->overwrite(ENGINE, SMOS_FROM_PAYLOAD, 0, text, 6), 0);
}

/* The second packet of a round was written over the first. */
static void test_fault_22_each_packet_of_a_burst_leaves_with_its_own_bytes(void)
{
    talk_t *t = inline_talk();
    for (int i = 0; i < 60; i++) handshake(t, i);
    for (int i = 0; i < 60; i++) segment(t, i, 0, SMOS__ACK, 101, 501, "______");
    run_with(t, number_it, SMOS_SENDER);
    CHECK_EQ(outs, 240);
    for (int i = 180; i < outs; i++) {
        char text[16];
        snprintf(text, sizeof text, "<%04d>", i + 1);
        CHECK_STR(out[i].text, text);
    }
}

static void insert_everywhere(void *self, const smos_call_t *c)
{
    static char huge[1 << 17];
    if (c->packet->payload_len != 6) return;
    CHECK_EQ(api->insert(ENGINE, 0, huge, sizeof huge), -EMSGSIZE); /* no packet can hold it: nothing was changed */
    CHECK_EQ(api->insert(ENGINE, 6, "three", 5), 0);
    CHECK_EQ(api->insert(ENGINE, 3, "two", 3), 0);
    CHECK_EQ(api->insert(ENGINE, 0, "one", 3), 0);
}

/* An insertion lost a byte, and had no bound. */
static void test_fault_25_an_insertion_loses_no_byte(void)
{
    talk_t *t = inline_talk();
    handshake(t, 0);
    segment(t, 0, 0, SMOS__ACK, 101, 501, "abcdef");
    segment(t, 0, 0, SMOS__ACK, 107, 501, "rest");
    run_with(t, insert_everywhere, SMOS_SENDER);
    CHECK_STR(out[3].text, "oneabctwodefthree");
    CHECK_EQ(out[4].seq, 101 + strlen(out[3].text));
    CHECK_STR(out[4].text, "rest");
}

static void reset_it(void *self, const smos_call_t *c)
{
    if (c->packet->payload_len) CHECK_EQ(api->reset(ENGINE, c->flow), 0);
}

/* The sequence and the acknowledgement number of a reset were exchanged. */
static void test_fault_25_a_reset_has_the_numbers_that_each_end_expects(void)
{
    talk_t *t = inline_talk();
    handshake(t, 0);
    segment(t, 0, 0, SMOS__ACK, 101, 501, "hello");
    run_with(t, reset_it, SMOS_SENDER);
    CHECK_EQ(outs, 3 + 2);
    for (int i = 3; i < outs; i++) {
        CHECK(out[i].flags & SMOS__RST);
        CHECK_EQ(out[i].seq, out[i].end == 0 ? 501 : 101); /* RFC 5961 3.2: RCV.NXT; the server never got "hello" */
    }
    CHECK(out[3].end != out[4].end);
}

static const uint8_t FLAGS[] = {SMOS__ACK, SMOS__ACK | SMOS__PSH, SMOS__ACK | SMOS__URG, SMOS__FIN | SMOS__ACK, SMOS__RST, SMOS__SYN};

static void inject_all(void *self, const smos_call_t *c)
{
    if (!c->packet->payload_len) return;
    for (size_t i = 0; i < sizeof FLAGS; i++) {
        smos_injection_t in = {.to = SMOS_CLIENT, .tcp_flags = FLAGS[i], .set_seq = 1, .seq = 501, .ack = 101};
        CHECK_EQ(api->inject(ENGINE, c->flow, &in), 0);
    }
}

/* The flags of a packet that was to be sent were ignored. */
static void test_fault_25_what_is_injected_has_the_flags_it_was_given(void)
{
    talk_t *t = inline_talk();
    handshake(t, 0);
    segment(t, 0, 0, SMOS__ACK, 101, 501, "hello");
    run_with(t, inject_all, SMOS_SENDER);
    size_t found = 0;
    for (int i = 3; i < outs; i++)
        if (out[i].end == 0) {
            CHECK(found < sizeof FLAGS);
            CHECK_EQ(out[i].flags, FLAGS[found++]);
            CHECK_EQ(out[i].seq, 501);
        }
    CHECK_EQ(found, sizeof FLAGS);
}

int main(void)
{
    RUN(test_fault_21_all_of_a_burst_leaves_in_order);
    RUN(test_fault_22_each_packet_of_a_burst_leaves_with_its_own_bytes);
    RUN(test_fault_25_an_insertion_loses_no_byte);
    RUN(test_fault_25_a_reset_has_the_numbers_that_each_end_expects);
    RUN(test_fault_25_what_is_injected_has_the_flags_it_was_given);
    return 0;
}
