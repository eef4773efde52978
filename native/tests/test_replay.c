/* Several captures as one, replays, and captures dealt out to workers. */
#include <sys/mman.h>
#include <time.h>

#include "captures.h"
#include "shardmos/engine.h"
#include "wire/decode.h"
#include "wire/owner.h"

#define MICRO 0xa1b2c3d4u
#define SECOND 1000000000ll

static int64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

/* `count` packets from `seconds` on, `step_us` apart, each filled with `fill`. */
static const char *capture_of(int count, uint32_t seconds, uint32_t step_us, uint8_t fill)
{
    bytes_t b = { 0 };
    pcap_header(&b, MICRO, 65535, 101);
    for (int i = 0; i < count; i++) {
        uint64_t us = (uint64_t)i * step_us;
        pcap_record(&b, seconds + (uint32_t)(us / 1000000), (uint32_t)(us % 1000000), 40, 40, fill);
    }
    return save(&b);
}

static void test_several_files_are_merged_by_time(void)
{
    const char *paths[] = { capture_of(300, 10, 10000, 1), capture_of(200, 11, 5000, 2), capture_of(0, 1, 1, 3), capture_of(1, 9, 1, 4), capture_of(100, 10, 10000, 5) };
    char error[SMOS__PORT_ERROR];
    smos__port_t *port = smos__port_open_captures(paths, 5, NULL, error);
    CHECK(port != NULL);
    content_t c = drain_bursts(port, 9);
    CHECK_EQ(c.result, SMOS__PORT_END);
    CHECK_EQ(c.count, 601);
    CHECK_EQ(c.stats.time_backward, 0);
    CHECK_EQ(c.frames[0].data[0], 4);
    int counts[6] = { 0 };
    for (int i = 0; i < c.count; i++) {
        const smos__frame_t *f = &c.frames[i], *before = i > 0 ? f - 1 : f;
        CHECK(f->time_ns >= before->time_ns);
        if (f->time_ns == before->time_ns) CHECK(f->data[0] >= before->data[0]); /* ties in the order of the arguments */
        counts[f->data[0]]++;
    }
    CHECK_EQ(counts[1], 300);
    CHECK_EQ(counts[2], 200);
    CHECK_EQ(counts[5], 100);
    discard(&c);
}

static void test_one_file_that_fails_does_not_hide_the_others(void)
{
    bytes_t b = { 0 };
    pcap_header(&b, MICRO, 65535, 101);
    pcap_record(&b, 5, 0, 40, 40, 7);
    pcap_record(&b, 15, 0, 40, 40, 7);
    b.length -= 3;
    const char *paths[] = { save(&b), capture_of(30, 4, 1000000, 1) };
    char error[SMOS__PORT_ERROR];
    content_t c = drain(smos__port_open_captures(paths, 2, NULL, error));
    CHECK_EQ(c.count, 31);
    CHECK_EQ(c.result, SMOS__PORT_FAILED);
    CHECK(strstr(c.error, "is cut short in packet 2") != NULL);
    discard(&c);
    const char *missing[] = { paths[1], "/nonexistent" };
    CHECK(smos__port_open_captures(missing, 2, NULL, error) == NULL);
    CHECK(strstr(error, "/nonexistent") != NULL);
    const char *twice[] = { "-", "-" };
    CHECK(smos__port_open_captures(twice, 2, NULL, error) == NULL);
    CHECK(smos__port_open_captures(twice, 0, NULL, error) == NULL);
}

static void test_a_loop_starts_over_with_time_going_on(void)
{
    bytes_t b = { 0 };
    pcap_header(&b, MICRO, 65535, 101);
    for (int i = 0; i < 100; i++) pcap_record(&b, 100 + (uint32_t)i, 0, 40, 40, (uint8_t)i);
    pcap_record(&b, 90, 0, 40, 40, 100); /* before the first */
    const char *path = save(&b);
    smos__replay_t how = { .loop = 1 };
    char error[SMOS__PORT_ERROR];
    smos__port_t *port = smos__port_open_captures(&path, 1, &how, error);
    CHECK(port != NULL);
    smos__frame_t burst[SMOS__BURST];
    uint64_t number = 0, epoch = 0;
    int64_t latest = 0, floor = 0;
    while (epoch < 5) {
        int got = port->receive(port, burst, SMOS__BURST);
        CHECK(got > 0);
        if (port->epoch != epoch) {
            CHECK_EQ(port->epoch, epoch + 1);
            CHECK_EQ(number % 101, 0);
            floor = latest;
            epoch++;
        }
        for (int i = 0; i < got; i++) {
            CHECK_EQ(burst[i].number, ++number);
            CHECK_EQ(burst[i].data[0], (number - 1) % 101);
            if (epoch > 0) CHECK(burst[i].time_ns > floor);
            if (burst[i].time_ns > latest) latest = burst[i].time_ns;
        }
    }
    CHECK_EQ(port->stats.packets, number);
    port->close(port);
}

static void test_what_cannot_loop_is_refused_and_an_empty_loop_ends(void)
{
    char error[SMOS__PORT_ERROR];
    smos__replay_t loop = { .loop = 1 };
    const char *path = "-";
    CHECK(smos__port_open_captures(&path, 1, &loop, error) == NULL);
    CHECK_STR(error, "standard input cannot be replayed in a loop: it can be read only once");
    path = capture_of(0, 1, 1, 1);
    content_t c = drain(smos__port_open_captures(&path, 1, &loop, error));
    CHECK_EQ(c.count, 0);
    CHECK_EQ(c.result, SMOS__PORT_END);
    smos__replay_t both = { .rate = 5, .as_recorded = 1 };
    CHECK(smos__port_open_captures(&path, 1, &both, error) == NULL);
}

/* Never early: the k-th packet comes no sooner than k / rate. How late a busy machine makes it is not tested. */
static void test_a_rate_is_kept(void)
{
    const char *path = capture_of(400, 5, 1, 1);
    smos__replay_t how = { .rate = 2000 };
    char error[SMOS__PORT_ERROR];
    int64_t start = clock_ns();
    smos__port_t *port = smos__port_open_captures(&path, 1, &how, error);
    smos__frame_t burst[SMOS__BURST];
    int got, count = 0, waits = 0;
    while ((got = port->receive(port, burst, SMOS__BURST)) >= 0) {
        count += got;
        CHECK((double)(clock_ns() - start) >= (count - 1) / 2000.0 * 1e9);
        if (got > 0) continue;
        CHECK_EQ(port->wait_ns, 1000000); /* the next is due sooner: packets gather */
        nanosleep(&(struct timespec){ .tv_nsec = port->wait_ns }, NULL);
        waits++;
    }
    CHECK_EQ(got, SMOS__PORT_END);
    CHECK_EQ(count, 400);
    CHECK(waits > 0);
    port->close(port);
}

static void test_as_recorded_keeps_the_distances(void)
{
    const char *path = capture_of(20, 5, 10000, 1);
    smos__replay_t how = { .as_recorded = 1 };
    char error[SMOS__PORT_ERROR];
    int64_t start = clock_ns();
    smos__port_t *port = smos__port_open_captures(&path, 1, &how, error);
    smos__frame_t burst[SMOS__BURST];
    int got, count = 0;
    while ((got = port->receive(port, burst, SMOS__BURST)) >= 0) {
        count += got;
        CHECK(clock_ns() - start >= (count - 1) * 10000000ll);
        if (got == 0) nanosleep(&(struct timespec){ .tv_nsec = port->wait_ns }, NULL);
    }
    CHECK_EQ(count, 20);
    port->close(port);
}

/* ---- Dealing ---- */

#define WORKERS 3
#define SEED 42u

/* IPv4 UDP, or with `fragment` its second part. */
static void put_udp(bytes_t *b, uint32_t time, uint16_t sport, int fragment)
{
    uint8_t ip[40] = { 0x45, 0, 0, 40, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 0, 0, 53, 0, 20 };
    if (fragment) ip[7] = 10;
    ip[20] = (uint8_t)(sport >> 8);
    ip[21] = (uint8_t)sport;
    put32(b, time / 1000);
    put32(b, time % 1000 * 1000);
    put32(b, 40);
    put32(b, 40);
    put(b, ip, sizeof ip);
}

static uint32_t owner_of(const smos__frame_t *frame)
{
    smos__decoded_t decoded;
    smos__decode(frame, NULL, &decoded);
    CHECK_EQ(decoded.layers, 1);
    return smos__owner(smos__owner_hash(&decoded.layer[0].tuple, SEED), WORKERS);
}

/* Rings far smaller than the capture: the dealer waits, loses nothing, and every worker learns the last time. */
static void test_dealing_gives_each_owner_its_packets_once(void)
{
    enum { COUNT = 60000 };
    bytes_t b = { 0 };
    pcap_header(&b, MICRO, 65535, 101);
    for (uint32_t i = 0; i < COUNT; i++) put_udp(&b, i, (uint16_t)(i * 7), i % 1000 == 0);
    b.length -= 1;
    const char *path = save(&b);
    int fds[WORKERS];
    for (int i = 0; i < WORKERS; i++) fds[i] = memfd_create("ring", MFD_CLOEXEC);
    char error[SMOS_ERROR_SIZE];
    smos_dealer_t *dealer = smos_dealer_open(&path, 1, NULL, fds, WORKERS, SEED, 4096, error);
    if (dealer == NULL) fprintf(stderr, "%s\n", error);
    CHECK(dealer != NULL);
    smos__port_t *ports[WORKERS];
    void *memory[WORKERS];
    size_t bytes = smos__ring_bytes(4096);
    for (int i = 0; i < WORKERS; i++) {
        memory[i] = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], 0);
        ports[i] = smos__port_open_ring(smos__ring_attach(memory[i], bytes), error);
    }
    uint8_t *seen = calloc(COUNT + 1, 1);
    int over[WORKERS] = { 0 }, ended = 0, stuck = 0;
    uint64_t last[WORKERS] = { 0 };
    for (uint32_t state = SMOS_RUN_TIME; ended < WORKERS;) {
        if (state == SMOS_RUN_TIME) state = smos_dealer_run(dealer, 2000000);
        stuck += state == SMOS_RUN_TIME;
        ended = 0;
        for (int w = 0; w < WORKERS; w++) {
            smos__frame_t burst[SMOS__BURST];
            int got = 0;
            while (!over[w] && (got = ports[w]->receive(ports[w], burst, SMOS__BURST)) > 0)
                for (int i = 0; i < got; i++) {
                    CHECK(burst[i].number > last[w]);
                    last[w] = burst[i].number;
                    int fragment = (burst[i].number - 1) % 1000 == 0;
                    if (!fragment) CHECK_EQ(owner_of(&burst[i]), w);
                    seen[burst[i].number]++;
                }
            over[w] |= got < 0;
            if (got < 0) CHECK_EQ(got, SMOS__PORT_FAILED);
            ended += over[w];
        }
        if (ended == WORKERS) CHECK_EQ(state, SMOS_RUN_FAILED);
    }
    for (int w = 0; w < WORKERS; w++) CHECK(last[w] > 0); /* all took part */
    CHECK(stuck > 0); /* the rings were full in between */
    CHECK(strstr(smos_dealer_error(dealer), "is cut short in packet 60000") != NULL);
    for (int i = 1; i < COUNT; i++) CHECK_EQ(seen[i], (i - 1) % 1000 == 0 ? WORKERS : 1);
    for (int w = 0; w < WORKERS; w++) {
        CHECK_STR(ports[w]->error, smos_dealer_error(dealer));
        int64_t known = ports[w]->now_ns;
        CHECK(known == (COUNT - 2) * 1000000ll || last[w] == COUNT - 1);
        ports[w]->close(ports[w]);
        munmap(memory[w], bytes);
        close(fds[w]);
    }
    smos_dealer_close(dealer);
    free(seen);
}

static void test_a_dealer_refuses_what_cannot_be(void)
{
    const char *path = "/nonexistent";
    int fd = memfd_create("ring", MFD_CLOEXEC), bad = -1;
    char error[SMOS_ERROR_SIZE];
    CHECK(smos_dealer_open(&path, 1, NULL, &fd, 1, 0, 0, error) == NULL);
    CHECK(strstr(error, "/nonexistent cannot be opened") != NULL);
    CHECK(smos_dealer_open(&path, 1, NULL, &bad, 1, 0, 0, error) == NULL);
    CHECK(strstr(error, "cannot be made") != NULL);
    CHECK(smos_dealer_open(&path, 1, NULL, &fd, 0, 0, 0, error) == NULL);
    CHECK(smos_dealer_open(&path, 1, NULL, &fd, 100000, 0, 0, error) == NULL);
    close(fd);
}

int main(void)
{
    RUN(test_several_files_are_merged_by_time);
    RUN(test_one_file_that_fails_does_not_hide_the_others);
    RUN(test_a_loop_starts_over_with_time_going_on);
    RUN(test_what_cannot_loop_is_refused_and_an_empty_loop_ends);
    RUN(test_a_rate_is_kept);
    RUN(test_as_recorded_keeps_the_distances);
    RUN(test_dealing_gives_each_owner_its_packets_once);
    RUN(test_a_dealer_refuses_what_cannot_be);
    return 0;
}
