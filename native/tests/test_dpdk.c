/* Devices of DPDK that need no card: captures (net_pcap), a ring (net_ring), and an interface of Linux (net_af_packet) in a network namespace of the
 * test's own, where it may make one. */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <linux/if_packet.h>

#include "captures.h"
#include "conversation.h"
#include "port/dpdk.h"

#define CONNECTIONS 40
#define LONG 3000 /* bytes of a frame that lies in several buffers, and is larger than the MTU */

static char directory[] = "/tmp/smos-dpdk-XXXXXX";
static bool namespace; /* with the interfaces smos0 and smos1, a veth pair */
static talk_t *everything, *clients, *servers;

static const char *in_directory(const char *name)
{
    static char paths[8][96];
    static int turn;
    char *path = paths[turn++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

static void write_talk(const talk_t *t, const char *name)
{
    bytes_t b = {0};
    pcap_header(&b, 0xa1b2c3d4, 65535, 1);
    for (int i = 0; i < t->count; i++) {
        const smos__frame_t *f = &t->frames[i];
        put32(&b, (uint32_t)(f->time_ns / 1000000000)), put32(&b, (uint32_t)(f->time_ns % 1000000000 / 1000));
        put32(&b, f->len), put32(&b, f->len);
        put(&b, f->data, f->len);
    }
    int fd = open(in_directory(name), O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, b.data, b.length) == (ssize_t)b.length);
    close(fd);
    free(b.data);
}

static void make_talks(void)
{
    static uint8_t large[LONG] = {[12] = 0x88, [13] = 0xb5};
    everything = talk(), clients = talk(), servers = talk();
    for (int i = 0; i < CONNECTIONS; i++) {
        handshake(everything, i);
        segment(everything, i, 0, SMOS__ACK, 101, 501, "GET / HTTP/1.0\r\n\r\n");
        segment(everything, i, 1, SMOS__ACK, 501, 119, "HTTP/1.0 200 OK\r\n\r\nhello");
        datagram(everything, i, i % 2, 30);
        goodbye(everything, i, 18, 24);
    }
    for (int i = 0; i < everything->count; i++) {
        const smos__frame_t *f = &everything->frames[i];
        whole_frame(f->data[14 + 15] == 1 ? clients : servers, f->data, f->len); /* the last byte of its source */
    }
    whole_frame(everything, large, LONG);
    whole_frame(clients, large, LONG);
}

static void join_interfaces(void)
{
    if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0) return;
    int fd = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, "1", 1) == 1) close(fd);
    namespace = system("ip link add smos0 type veth peer name smos1 2>/dev/null && ip link set smos0 up && ip link set smos1 up") == 0;
}

static smos_shard_t *shard_on(const smos_dpdk_port_t *o)
{
    char error[SMOS_ERROR_SIZE];
    smos_config_t config;
    smos_config_default(&config);
    CHECK_EQ(smos_config_memory(&config, 64 << 20), 0);
    config.checksums = 1;
    config.records = 1; /* somebody wants the streams */
    smos_shard_t *s = smos_shard_create(&config, error);
    CHECK(s != NULL);
    if (o && smos_shard_add_dpdk_port(s, o, error) < 0) {
        fprintf(stderr, "%s\n", error);
        exit(1);
    }
    return s;
}

static uint64_t counted(const smos_shard_t *s, smos__counter_t which) { return s->counters[which]; }

static void run_until(smos_shard_t *s, uint64_t packets)
{
    for (time_t end = time(NULL) + 20; counted(s, SMOS__C_packets) < packets && time(NULL) < end;) smos_shard_run(s, 10 * MS);
    smos_shard_run(s, 10 * MS);
    CHECK_EQ(counted(s, SMOS__C_packets), packets);
}

/* The frames of a capture that DPDK wrote are these, in their order, but for the long one. */
static void check_written(const char *name, const talk_t *expected)
{
    char error[SMOS__PORT_ERROR];
    const char *path = in_directory(name);
    smos__replay_t replay = {0};
    smos__port_t *port = smos__port_open_captures(&path, 1, &replay, error);
    CHECK(port != NULL);
    smos__frame_t burst[SMOS__BURST];
    int at = 0;
    for (int n; (n = port->receive(port, burst, SMOS__BURST)) >= 0;)
        for (int i = 0; i < n; i++, at++) {
            CHECK(at < expected->count);
            CHECK_EQ(burst[i].len, expected->frames[at].len);
            CHECK(memcmp(burst[i].data, expected->frames[at].data, burst[i].len) == 0);
        }
    CHECK_EQ(at, expected->count - (expected == clients));
    port->close(port);
}

static void test_a_capture_gives_what_our_reader_gives(void)
{
    char error[SMOS_ERROR_SIZE];
    const char *path = in_directory("everything.pcap");
    smos_shard_t *read = shard_on(NULL), *polled = shard_on(&(smos_dpdk_port_t){.device = {"net_pcap2"}, .queues = 1});
    CHECK_EQ(smos_shard_open_captures(read, &path, 1, NULL, error), 0);
    while (!(smos_shard_run(read, INT64_MAX) & SMOS_RUN_END)) continue;
    run_until(polled, (uint64_t)everything->count);
    static const smos__counter_t SAME[] = {SMOS__C_packets, SMOS__C_bytes, SMOS__C_packets_flow, SMOS__C_drop_not_ip, SMOS__C_flows_made_tcp, SMOS__C_flows_made_udp, SMOS__C_flows_established, SMOS__C_stream_bytes};
    for (size_t i = 0; i < sizeof SAME / sizeof *SAME; i++) CHECK_EQ(counted(polled, SAME[i]), counted(read, SAME[i]));
    CHECK_EQ(counted(polled, SMOS__C_flows_made_tcp), CONNECTIONS);
    CHECK_EQ(polled->port->stats.dropped, 0);
    smos_shard_destroy(read);
    smos_shard_destroy(polled);
}

static void refuse_udp(void *engine, const smos_call_t *call)
{
    if (call->tuple->proto == 17) smos_shard_api()->drop(engine);
}

static void test_a_pair_passes_frames_on_as_they_came(void)
{
    smos_shard_t *s = shard_on(&(smos_dpdk_port_t){.device = {"net_pcap0", "net_pcap1"}, .queues = 1});
    run_until(s, (uint64_t)clients->count + (uint64_t)servers->count);
    smos__port_stats_t stats = s->port->stats;
    CHECK_EQ(stats.forwarded, clients->count + servers->count - 1);
    CHECK_EQ(stats.lost_size, 1);
    smos_shard_destroy(s); /* which writes what is left */
    check_written("out1.pcap", clients);
    check_written("out0.pcap", servers);
}

static void test_what_a_module_drops_does_not_pass(void)
{
    static const smos_registration_t DROPS[] = {{.event = SMOS_PKT_IN, .side = SMOS_BOTH, .hook = SMOS_SENDER, .handler = refuse_udp}, {.event = SMOS_EVENT_COUNT}};
    smos_shard_t *s = shard_on(&(smos_dpdk_port_t){.device = {"net_pcap3", "net_pcap4"}, .queues = 1});
    commit(s, module_of(s, &(smos_module_t){SMOS_MODULE_HEADER, .name = "wall", .registrations = DROPS}));
    run_until(s, (uint64_t)clients->count + (uint64_t)servers->count);
    CHECK_EQ(counted(s, SMOS__C_drop_verdict), CONNECTIONS);
    CHECK_EQ(s->port->stats.forwarded + s->port->stats.lost_size, clients->count + servers->count - CONNECTIONS);
    smos_shard_destroy(s);
}

static void test_a_frame_of_ours_comes_back_from_a_ring(void)
{
    char error[SMOS__PORT_ERROR];
    const smos_dpdk_port_t rings = {.device = {"net_ring0", "net_ring1"}, .queues = 1};
    smos__port_t *port = smos__dpdk_open(&rings, error);
    CHECK(port != NULL);
    const smos__frame_t *f = &everything->frames[3];
    smos__frame_t got[SMOS__BURST];
    CHECK_EQ(port->send(port, 0, f->data, f->len, NULL), 0);
    CHECK_EQ(port->send(port, 0, f->data, LONG, NULL), -EMSGSIZE);
    port->flush(port);
    CHECK_EQ(port->receive(port, got, SMOS__BURST), 1);
    CHECK(got[0].end == 0 && got[0].len == f->len && memcmp(got[0].data, f->data, f->len) == 0);
    port->forward(port, &got[0]);
    port->flush(port);
    CHECK_EQ(port->receive(port, got, SMOS__BURST), 1);
    CHECK(got[0].end == 1 && memcmp(got[0].data, f->data, f->len) == 0);
    smos__frame_t handed = {.data = f->data, .caplen = f->len, .len = f->len, .flags = SMOS__FRAME_HANDED, .end = 0};
    port->drop(port, &got[0]);
    port->forward(port, &handed); /* another worker's memory: copied */
    port->flush(port);
    CHECK_EQ(port->receive(port, got, SMOS__BURST), 1);
    CHECK(got[0].end == 1 && memcmp(got[0].data, f->data, f->len) == 0);
    port->drop(port, &got[0]);
    CHECK_EQ(port->receive(port, got, SMOS__BURST), 0);
    CHECK_EQ(port->stats.sent, 1);
    CHECK_EQ(port->stats.unsent, 1);
    CHECK_EQ(port->stats.forwarded, 2);
    port->close(port);
    port = smos__dpdk_open(&rings, error); /* and once more, after the last user has gone */
    CHECK(port != NULL);
    port->close(port);
}

static void test_an_interface_of_linux(void)
{
    if (!namespace) {
        printf("skipped: no network namespace, or no program ip\n");
        return;
    }
    smos_shard_t *s = shard_on(&(smos_dpdk_port_t){.device = {"net_af_packet0"}, .queues = 1});
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    struct sockaddr_ll far = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex("smos1")};
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&far, sizeof far) == 0);
    int count = everything->count - 1; /* but for the long one */
    for (int i = 0; i < count; i++) {
        CHECK_EQ(send(fd, everything->frames[i].data, everything->frames[i].len, 0), everything->frames[i].len);
        if (i % 32 == 31) smos_shard_run(s, MS); /* as the ring is small */
    }
    close(fd);
    run_until(s, (uint64_t)count);
    CHECK_EQ(counted(s, SMOS__C_flows_made_tcp), CONNECTIONS);
    CHECK_EQ(counted(s, SMOS__C_stream_bytes), CONNECTIONS * (18 + 24));
    smos_shard_destroy(s);
}

static void refused(const smos_dpdk_port_t *o, const char *why)
{
    char error[SMOS__PORT_ERROR] = "";
    CHECK(smos__dpdk_open(o, error) == NULL);
    if (!strstr(error, why)) fprintf(stderr, "%s\n", error);
    CHECK(strstr(error, why) != NULL && !strchr(error, '\n'));
}

static void test_what_cannot_be_is_one_line(void)
{
    refused(&(smos_dpdk_port_t){.device = {"net_nothing"}, .queues = 1}, "DPDK has no device net_nothing; there are: net_");
    refused(&(smos_dpdk_port_t){.device = {"net_ring0"}, .queues = 60000}, "queues for 60000 shards; give at most");
    refused(&(smos_dpdk_port_t){.device = {"net_ring0", "net_ring0"}, .queues = 1}, "two that differ");
    refused(&(smos_dpdk_port_t){.device = {"net_ring0"}, .queue = 1, .queues = 1}, "a queue below their number");
    char error[SMOS_ERROR_SIZE];
    CHECK(smos_dpdk_init(0, NULL, error) < 0);
}

int main(void)
{
    CHECK(mkdtemp(directory) != NULL);
    join_interfaces();
    make_talks();
    write_talk(everything, "everything.pcap");
    write_talk(clients, "clients.pcap");
    write_talk(servers, "servers.pcap");
    char vdevs[8][300];
    for (int i = 0; i < 5; i++)
        snprintf(vdevs[i], sizeof vdevs[i], "--vdev=net_pcap%d,rx_pcap=%s,tx_pcap=%s/out%d.pcap", i, in_directory(i == 2 ? "everything.pcap" : i % 3 == 0 ? "clients.pcap" : "servers.pcap"), directory, i);
    const char *arguments[] = {"test_dpdk", "--no-huge", "-m", "512", "--no-pci", "--no-telemetry", "--no-shconf", "--log-level=error", "-l", "0", vdevs[0], vdevs[1], vdevs[2], vdevs[3], vdevs[4], "--vdev=net_ring0", "--vdev=net_ring1", "--vdev=net_af_packet0,iface=smos0"};
    char error[SMOS_ERROR_SIZE];
    int count = (int)(sizeof arguments / sizeof *arguments) - !namespace;
    if (smos_dpdk_init(count, arguments, error) < 0) fprintf(stderr, "%s\n", error), exit(1);
    RUN(test_a_capture_gives_what_our_reader_gives);
    RUN(test_a_pair_passes_frames_on_as_they_came);
    RUN(test_what_a_module_drops_does_not_pass);
    RUN(test_a_frame_of_ours_comes_back_from_a_ring);
    RUN(test_an_interface_of_linux);
    RUN(test_what_cannot_be_is_one_line);
    char clean[64];
    snprintf(clean, sizeof clean, "rm -r %s", directory);
    return system(clean) != 0;
}
