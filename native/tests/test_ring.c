/* The hand-over ring: every frame once and in order, whatever the sizes; full is said, the end is said, garbage is survived. */
#include <pthread.h>

#include "captures.h"
#include "port/ring.h"

static void *map(size_t *bytes)
{
    *bytes = smos__ring_bytes(0);
    void *memory = aligned_alloc(64, *bytes);
    CHECK(memory != NULL);
    memset(memory, 0, *bytes);
    return memory;
}

static uint8_t content[262144];

static smos__frame_t frame_of(uint64_t number)
{
    uint32_t seed = (uint32_t)number * 2654435761u;
    uint32_t caplen = number % 50 == 0 ? (seed >> 4) % 262145 : (seed >> 8) % 1600;
    return (smos__frame_t){ .data = content, .caplen = caplen, .len = caplen + (seed & 7), .time_ns = (int64_t)number * 1000, .number = number,
                            .linktype = (uint16_t)(seed >> 16), .port = 3, .flags = seed & 1 };
}

static void *produce(void *memory)
{
    smos__ring_t *ring = smos__ring_init(memory, 0);
    for (uint64_t number = 1; number <= 30000; number++) {
        smos__frame_t frame = frame_of(number);
        if (number % 10000 == 0) while (!smos__ring_push_epoch(ring, number / 10000)) usleep(10);
        while (!smos__ring_push(ring, &frame)) usleep(10);
    }
    while (!smos__ring_push_clock(ring, 77777777777)) usleep(10);
    smos__ring_end(ring, NULL);
    smos__ring_free(ring);
    return NULL;
}

static void test_every_frame_in_order_between_threads(void)
{
    for (size_t i = 0; i < sizeof content; i++) content[i] = (uint8_t)(i * 31 >> 3);
    size_t bytes;
    void *memory = map(&bytes);
    pthread_t producer;
    CHECK_EQ(pthread_create(&producer, NULL, produce, memory), 0);
    smos__ring_t *ring;
    while ((ring = smos__ring_attach(memory, bytes)) == NULL) usleep(100);
    char error[SMOS__PORT_ERROR];
    smos__port_t *port = smos__port_open_ring(ring, error);
    smos__frame_t burst[SMOS__BURST];
    uint64_t number = 0;
    int got;
    while ((got = port->receive(port, burst, SMOS__BURST)) >= 0) {
        if (got == 0) {
            CHECK(port->wait_ns > 0);
            usleep(20);
        }
        for (int i = 0; i < got; i++) {
            smos__frame_t expected = frame_of(++number);
            CHECK_EQ(burst[i].number, number);
            CHECK_EQ(burst[i].caplen, expected.caplen);
            CHECK_EQ(burst[i].len, expected.len);
            CHECK_EQ(burst[i].time_ns, expected.time_ns);
            CHECK_EQ(burst[i].linktype, expected.linktype);
            CHECK_EQ(burst[i].flags, expected.flags);
            CHECK_EQ(burst[i].port, 3);
            CHECK_EQ(port->epoch, number / 10000); /* a burst never spans two rounds */
            CHECK(memcmp(burst[i].data, content, burst[i].caplen) == 0);
        }
    }
    CHECK_EQ(got, SMOS__PORT_END);
    CHECK_EQ(number, 30000);
    CHECK_EQ(port->stats.packets, 30000);
    CHECK_EQ(port->now_ns, 77777777777);
    port->close(port);
    pthread_join(producer, NULL);
    free(memory);
}

static void test_full_is_counted_and_space_returns_with_the_next_receive(void)
{
    size_t bytes;
    void *memory = map(&bytes);
    smos__ring_t *producer = smos__ring_init(memory, 0);
    smos__frame_t frame = { .data = content, .caplen = 100000, .len = 100000 };
    int pushed = 0;
    while (smos__ring_push(producer, &frame)) pushed++;
    CHECK(pushed >= 8 && pushed <= 11);
    CHECK_EQ(smos__ring_full(producer), 1);
    char error[SMOS__PORT_ERROR];
    smos__port_t *port = smos__port_open_ring(smos__ring_attach(memory, bytes), error);
    smos__frame_t out;
    CHECK_EQ(port->receive(port, &out, 1), 1);
    CHECK(!smos__ring_push(producer, &frame)); /* the consumer still looks at it */
    CHECK_EQ(port->receive(port, &out, 1), 1);
    CHECK(smos__ring_push(producer, &frame));
    CHECK(!smos__ring_push(producer, &frame));
    smos__ring_end(producer, "x.pcap is cut short in packet 9");
    for (int i = 2; i < pushed + 1; i++) CHECK_EQ(port->receive(port, &out, 1), 1);
    CHECK_EQ(port->receive(port, &out, 1), SMOS__PORT_FAILED);
    CHECK_STR(port->error, "x.pcap is cut short in packet 9");
    port->close(port);
    smos__ring_free(producer);
    free(memory);
}

/* Frames that were dealt before a clock are handed out before it shows: it would make them later than they were. */
static void test_a_clock_shows_after_the_frames_before_it(void)
{
    size_t bytes;
    void *memory = map(&bytes);
    smos__ring_t *producer = smos__ring_init(memory, 0);
    smos__frame_t frame = { .data = content, .caplen = 60, .len = 60, .time_ns = 10 }, out[8];
    CHECK(smos__ring_push(producer, &frame));
    CHECK(smos__ring_push(producer, &frame));
    CHECK(smos__ring_push_clock(producer, 50));
    frame.time_ns = 60;
    CHECK(smos__ring_push(producer, &frame)); /* moves the time past the clock by itself: may share the burst */
    CHECK(smos__ring_push_clock(producer, 90));
    frame.time_ns = 70;
    CHECK(smos__ring_push(producer, &frame)); /* goes back behind the clock: must not */
    char error[SMOS__PORT_ERROR];
    smos__port_t *port = smos__port_open_ring(smos__ring_attach(memory, bytes), error);
    CHECK_EQ(port->receive(port, out, 8), 3);
    CHECK(port->now_ns <= 10);
    CHECK_EQ(port->receive(port, out, 8), 1);
    CHECK_EQ(out[0].time_ns, 70);
    CHECK_EQ(port->now_ns, 90);
    CHECK(smos__ring_push_clock(producer, 100));
    CHECK_EQ(port->receive(port, out, 8), 0);
    CHECK_EQ(port->now_ns, 100);
    port->close(port);
    smos__ring_free(producer);
    free(memory);
}

static void test_what_is_no_ring_is_not_attached(void)
{
    size_t bytes;
    uint8_t *memory = map(&bytes);
    CHECK(smos__ring_attach(memory, bytes) == NULL);
    smos__ring_free(smos__ring_init(memory, 0));
    CHECK(smos__ring_attach(memory, 100) == NULL);
    CHECK(smos__ring_attach(memory, bytes - 1) == NULL);
    smos__ring_t *ring = smos__ring_attach(memory, bytes);
    CHECK(ring != NULL);
    smos__ring_free(ring);
    memory[8] = 9; /* version */
    CHECK(smos__ring_attach(memory, bytes) == NULL);
    free(memory);
}

/* Any byte of the mapping may be garbage at any time: frames stay inside it, and the port ends rather than hangs. */
static void test_a_garbled_ring_stays_inside_its_memory(void)
{
    size_t bytes;
    uint8_t *memory = map(&bytes);
    uint32_t seed = 12345;
    for (int round = 0; round < 300; round++) {
        smos__ring_t *producer = smos__ring_init(memory, 0);
        char error[SMOS__PORT_ERROR];
        smos__port_t *port = smos__port_open_ring(smos__ring_attach(memory, bytes), error);
        for (uint64_t i = 1; i < 40; i++) {
            smos__frame_t frame = frame_of(i);
            smos__ring_push(producer, &frame);
        }
        smos__ring_end(producer, round % 2 ? "error" : NULL);
        smos__frame_t burst[8];
        int got;
        for (int turn = 0; turn < 200; turn++) {
            seed = seed * 1664525 + 1013904223;
            size_t at = round % 3 == 0 ? (seed >> 8) % 1024 : (seed >> 8) % 40000;
            memory[at] = (uint8_t)(seed >> 3);
            got = port->receive(port, burst, 8);
            if (got < 0) break;
            for (int i = 0; i < got; i++) {
                CHECK(burst[i].data >= memory && burst[i].data + burst[i].caplen <= memory + bytes);
                CHECK(burst[i].len >= burst[i].caplen);
            }
        }
        port->close(port);
        smos__ring_free(producer);
    }
    free(memory);
}

int main(void)
{
    RUN(test_every_frame_in_order_between_threads);
    RUN(test_full_is_counted_and_space_returns_with_the_next_receive);
    RUN(test_a_clock_shows_after_the_frames_before_it);
    RUN(test_what_is_no_ring_is_not_attached);
    RUN(test_a_garbled_ring_stays_inside_its_memory);
    return 0;
}
