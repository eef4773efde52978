/* Where a live shard waits: frames whose turn comes with other workers' words lie in a ring that is readable all the while. */
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "port/multi.h"
#include "shard/shard.h"

typedef struct fake {
    smos__port_t port;
    bool has_one;
    int asked;
} fake_t;

static uint8_t arp[60] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x08, 0x06};

static int64_t now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int receive(smos__port_t *port, smos__frame_t *burst, int max)
{
    fake_t *f = (fake_t *)port;
    f->asked++;
    if (!f->has_one || max < 1) return 0;
    f->has_one = false;
    burst[0] = (smos__frame_t){.data = arp, .caplen = sizeof arp, .len = sizeof arp, .time_ns = now_ns(CLOCK_REALTIME), .number = 1, .linktype = 1};
    return 1;
}

static void want_clock(smos__port_t *port, int64_t until_ns) { (void)port, (void)until_ns; }
static void close_port(smos__port_t *port) { (void)port; }

static void test_a_frame_that_waits_for_others_costs_no_core(void)
{
    char error[SMOS_ERROR_SIZE];
    smos_config_t config;
    smos_config_default(&config);
    CHECK_EQ(smos_config_memory(&config, 64 << 20), 0);
    smos_shard_t *s = smos_shard_create(&config, error);
    CHECK(s != NULL);
    fake_t device = {.has_one = true, .port = {.receive = receive, .close = close_port, .ends = 1}};
    fake_t other = {.port = {.receive = receive, .close = close_port, .want_clock = want_clock, .fd = -1, .ends = 1}}; /* never says how far it is */
    device.port.fd = eventfd(1, EFD_NONBLOCK); /* readable, as a ring whose frames are kept */
    CHECK(device.port.fd >= 0);
    CHECK_EQ(smos__shard_add_port(s, &device.port, error), 0);
    CHECK_EQ(smos__shard_add_port(s, &other.port, error), 0);
    smos__multi_keep_order(s->port);

    const int64_t span = 100000000; /* less than the patience with which the frame waits */
    int64_t began = now_ns(CLOCK_MONOTONIC);
    while (now_ns(CLOCK_MONOTONIC) - began < span) smos_shard_run_waiting(s, 1000000, span / 4, NULL, 0);
    CHECK_EQ(s->counters[SMOS__C_packets], 0);
    CHECK(other.asked < 3000); /* awake it would be ten times that */

    while (now_ns(CLOCK_MONOTONIC) - began < 3 * span) smos_shard_run_waiting(s, 1000000, span / 4, NULL, 0);
    CHECK_EQ(s->counters[SMOS__C_packets], 1);
    close(device.port.fd);
    smos_shard_destroy(s);
}

int main(void)
{
    RUN(test_a_frame_that_waits_for_others_costs_no_core);
    return 0;
}
