/* An inline port: after a burst each frame meets forward or drop, once and in order; what is not understood passes. */
#include "check.h"
#include "frames.h"
#include "port/port.h"
#include "shard/shard.h"

#define MAX 16

typedef struct fake {
    smos__port_t port;
    smos__frame_t frames[MAX];
    int count, at, settled, flushed;
    char said[MAX + 1]; /* per frame: F forwarded, D dropped */
} fake_t;

static int receive(smos__port_t *port, smos__frame_t *burst, int max)
{
    fake_t *f = (fake_t *)port;
    CHECK_EQ(f->settled, f->at); /* those of the last burst are settled */
    int n = 0;
    while (n < max && n < 5 && f->at < f->count) burst[n++] = f->frames[f->at++];
    return n ? n : SMOS__PORT_END;
}

static void settle(fake_t *f, const smos__frame_t *frame, char how)
{
    CHECK_EQ(frame->number, (uint64_t)f->settled + 1);
    f->said[f->settled++] = how;
}

static void forward(smos__port_t *port, smos__frame_t *frame)
{
    settle((fake_t *)port, frame, 'F');
    port->stats.forwarded++;
    port->stats.forwarded_bytes += frame->len;
}

static void drop(smos__port_t *port, smos__frame_t *frame) { settle((fake_t *)port, frame, 'D'); }
static void flush(smos__port_t *port) { ((fake_t *)port)->flushed++; }
static void close_port(smos__port_t *port) { (void)port; }

static uint8_t arp[60] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x08, 0x06};
static uint8_t stp[60] = {1, 0x80, 0xc2, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 38, 0x42, 0x42, 3};
static uint8_t bad_ip[60] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00, 0x41}; /* a header of 4 bytes */
static uint8_t udp[46] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00, 0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x13, 0x88, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4};

static void add(fake_t *f, const uint8_t *data, uint32_t length)
{
    f->frames[f->count] = (smos__frame_t){.data = data, .caplen = length, .len = length, .time_ns = 1000 + f->count, .number = (uint64_t)f->count + 1, .linktype = 1};
    f->count++;
}

static void on_packet(void *engine, const smos_call_t *call)
{
    (void)call;
    smos_shard_api()->drop(engine);
}

static const smos_registration_t DROPS[] = {{.event = SMOS_PKT_IN, .side = SMOS_BOTH, .hook = SMOS_SENDER, .handler = on_packet}, {.event = SMOS_EVENT_COUNT}};

static void run(fake_t *f, uint8_t refuse, bool drop_udp, uint64_t *counters)
{
    char error[SMOS_ERROR_SIZE];
    smos_config_t config;
    smos_config_default(&config);
    CHECK_EQ(smos_config_memory(&config, 64 << 20), 0);
    config.refuse = refuse;
    config.checksums = 1;
    smos_shard_t *s = smos_shard_create(&config, error);
    CHECK(s != NULL);
    if (drop_udp) {
        smos_module_t module = {SMOS_MODULE_HEADER, .name = "wall", .registrations = DROPS};
        smos_box_t *old = NULL, *box = smos_box_create(s, &module, "1", s, NULL, error);
        if (!box) fprintf(stderr, "%s\n", error);
        CHECK(box != NULL);
        CHECK_EQ(smos_shard_commit(s, box, &old), 0);
    }
    f->port = (smos__port_t){.receive = receive, .forward = forward, .drop = drop, .flush = flush, .close = close_port, .fd = -1, .ends = 2};
    s->port = &f->port;
    while (!(smos_shard_run(s, 1000000000) & SMOS_RUN_END)) continue;
    CHECK_EQ(f->settled, f->count);
    CHECK(f->flushed > 0);
    memcpy(counters, s->counters, sizeof s->counters);
    uint64_t drops = counters[SMOS__C_drop_verdict] + counters[SMOS__C_drop_reset_flow];
    for (int i = SMOS__C_drop_not_ip; i <= SMOS__C_drop_no_memory; i++) drops += counters[i];
    CHECK_EQ(counters[SMOS__C_packets], counters[SMOS__C_packets_forwarded] + drops);
    smos_shard_destroy(s);
}

static void burst_of_all(fake_t *f)
{
    memset(f, 0, sizeof *f);
    add(f, arp, sizeof arp);
    add(f, udp, sizeof udp);
    add(f, stp, sizeof stp);
    add(f, bad_ip, sizeof bad_ip);
    add(f, udp, sizeof udp);
    add(f, arp, sizeof arp);
    add(f, udp, 20); /* cut */
}

static void test_what_is_not_understood_passes(void)
{
    fake_t f;
    uint64_t c[SMOS__C_COUNT];
    burst_of_all(&f);
    run(&f, 0, false, c);
    CHECK_STR(f.said, "FFFFFFF");
    CHECK_EQ(c[SMOS__C_passed_not_ip], 3);
    CHECK_EQ(c[SMOS__C_packets_flow], 2);
    CHECK_EQ(c[SMOS__C_drop_not_ip] + c[SMOS__C_drop_malformed], 0);
}

static void test_what_is_refused_or_dropped_does_not(void)
{
    fake_t f;
    uint64_t c[SMOS__C_COUNT];
    burst_of_all(&f);
    run(&f, SMOS_REFUSE_MALFORMED, true, c);
    CHECK_STR(f.said, "FDFDDFD");
    CHECK_EQ(c[SMOS__C_drop_verdict], 2);
    burst_of_all(&f);
    run(&f, SMOS_REFUSE_NOT_IP, false, c);
    CHECK_STR(f.said, "DFDFFDF");
    CHECK_EQ(c[SMOS__C_drop_not_ip], 3);
}

int main(void)
{
    RUN(test_what_is_not_understood_passes);
    RUN(test_what_is_refused_or_dropped_does_not);
    return 0;
}
