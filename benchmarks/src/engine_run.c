/* engine_run: one shard of the engine over a capture, on the C library alone, and what it cost, as one JSON line.
 *
 * With --mode deliver (the default) a C handler on NEW_DATA sums the bytes of both streams, so everything is tracked and
 * reassembled; with --mode track nobody subscribes to anything.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "measure.h"
#include "shardmos/engine.h"

enum { SLICE_NS = 1000000, SEGMENTS = 3 };

typedef struct options {
    const char *file;
    int deliver, segments, detail, records;
    uint64_t max_flows, mark;
    uint32_t worker, workers;
    uint8_t reader;
} options_t;

typedef struct result {
    uint64_t stream_bytes[2]; /* by sender */
    uint64_t calls;
    uint64_t records;
    uint64_t alive;                            /* flows when the capture ended */
    uint64_t memory;                           /* then */
    uint64_t mark_packets, mark_cpu, end_cpu; /* --mark: counted and spent when it was passed, and at the end */
    uint32_t last;
} result_t;

static void on_data(void *self, const smos_call_t *call)
{
    result_t *result = self;
    result->calls++;
    result->stream_bytes[!call->side] += call->length; /* side is the receiver */
}

static const smos_registration_t handlers[] = {
    {.event = SMOS_NEW_DATA, .side = SMOS_BOTH, .handler = on_data},
    {.event = SMOS_EVENT_COUNT},
};

static const smos_module_t manifest = {SMOS_MODULE_HEADER, .name = "sum-bytes", .registrations = handlers};

/* The value of a counter of the stats segment; 0 if there is none of that name. */
static uint64_t counter(const smos_shard_t *shard, const char *name)
{
    const smos_stats_header_t *header = smos_shard_stats(shard);
    const char *names = (const char *)header + header->names_offset, *end = names + header->names_bytes;
    const uint64_t *values = (const uint64_t *)((const char *)header + header->counters_offset);
    for (uint32_t i = 0; i < header->counters && names < end; i++, names += strlen(names) + 1)
        if (!strcmp(names, name))
            return values[i];
    return 0;
}

static void print_counters(const smos_shard_t *shard)
{
    const smos_stats_header_t *header = smos_shard_stats(shard);
    const char *names = (const char *)header + header->names_offset, *end = names + header->names_bytes, *comma = "";
    const uint64_t *values = (const uint64_t *)((const char *)header + header->counters_offset);
    printf("{");
    for (uint32_t i = 0; i < header->counters && names < end; i++, names += strlen(names) + 1)
        if (values[i]) {
            printf("%s\"%s\": %" PRIu64, comma, names, values[i]);
            comma = ", ";
        }
    printf("}");
}

static void take_records(smos_shard_t *shard, result_t *r)
{
    const smos_flow_info_t *records;
    r->records += smos_shard_take_records(shard, &records);
}

/* Not inlined: callgrind collects in this function only. */
__attribute__((noinline)) static void bench_loop(smos_shard_t *shard, const options_t *o, result_t *r)
{
    int64_t slice = o->mark ? SLICE_NS : INT64_MAX;
    do {
        r->last = smos_shard_run(shard, slice);
        take_records(shard, r);
        if (o->mark && !r->mark_packets && counter(shard, "packets") >= o->mark) {
            r->mark_packets = counter(shard, "packets");
            r->mark_cpu = cpu_ns();
        }
    } while (!(r->last & (SMOS_RUN_END | SMOS_RUN_FAILED)));
    r->end_cpu = cpu_ns();
    if (o->segments) {
        r->alive = smos_shard_api()->flow_count(smos_shard_engine(shard));
        r->memory = memory_bytes();
    }
    uint32_t bits;
    do {
        bits = smos_shard_finish(shard, SMOS_END_CAPTURE, 0);
        take_records(shard, r);
    } while (!(bits & SMOS_RUN_END));
}

static const char usage[] =
    "usage: engine_run FILE [--mode deliver|track] [--max-flows N] [--workers N --worker I]\n"
    "                  [--reader auto|libpcap|mapped] [--detail] [--records] [--segments] [--mark PACKETS]\n"
    "  --detail    also keep history, round-trip times and anomalies per flow\n"
    "  --records   also write a record of each flow that ends, as shardmos.flows() has them\n"
    "  --segments  lay the segments out in memfds and measure memory at the capture's end\n"
    "  --mark      also tell the CPU time when PACKETS had been counted (runs in slices of 1 ms)\n";

static int choose(const char *text, const char *const *names)
{
    for (int i = 0; names[i]; i++)
        if (!strcmp(text, names[i]))
            return i;
    fprintf(stderr, "engine_run: no such choice: '%s'\n%s", text, usage);
    exit(2);
}

static uint64_t number(const char *text)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (!*text || *end || *text == '-' || value > UINT32_MAX) {
        fprintf(stderr, "engine_run: '%s' is not a number from 0 to %u\n", text, UINT32_MAX);
        exit(2);
    }
    return value;
}

static options_t parse(int argc, char **argv)
{
    options_t o = {.deliver = 1, .workers = 1};
    static const char *const modes[] = {"track", "deliver", NULL}, *const readers[] = {"auto", "libpcap", "mapped", NULL};
    static const struct option options[] = {
        {"mode", 1, NULL, 'm'},    {"max-flows", 1, NULL, 'f'}, {"workers", 1, NULL, 'n'}, {"worker", 1, NULL, 'w'},
        {"reader", 1, NULL, 'r'},  {"detail", 0, NULL, 'd'},    {"records", 0, NULL, 'c'}, {"segments", 0, NULL, 's'},
        {"mark", 1, NULL, 'k'},    {"help", 0, NULL, 'h'},    {0},
    };
    for (int letter; (letter = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (letter) {
        case 'm': o.deliver = choose(optarg, modes); break;
        case 'f': o.max_flows = number(optarg); break;
        case 'n': o.workers = (uint32_t)number(optarg); break;
        case 'w': o.worker = (uint32_t)number(optarg); break;
        case 'r': o.reader = (uint8_t)choose(optarg, readers); break;
        case 'd': o.detail = 1; break;
        case 'c': o.records = 1; break;
        case 's': o.segments = 1; break;
        case 'k': o.mark = number(optarg); break;
        case 'h': fputs(usage, stdout); exit(0);
        default: fputs(usage, stderr); exit(2);
        }
    }
    if (argc - optind != 1) {
        fputs(usage, stderr);
        exit(2);
    }
    o.file = argv[optind];
    return o;
}

static void fail(const char *error)
{
    fprintf(stderr, "engine_run: %s\n", error);
    exit(1);
}

int main(int argc, char **argv)
{
    options_t o = parse(argc, argv);
    char error[SMOS_ERROR_SIZE] = "";
    static const char *const names[SEGMENTS] = {"stats", "state", "breadcrumb"};
    int fd[SEGMENTS] = {-1, -1, -1};
    smos_config_t config;
    smos_config_default(&config);
    config.worker = o.worker;
    config.workers = o.workers;
    config.detail = o.detail ? SMOS_DETAIL_HISTORY | SMOS_DETAIL_RTT | SMOS_DETAIL_ANOMALIES : 0;
    config.records = o.records;
    if (o.max_flows)
        config.max_flows = o.max_flows;
    for (int i = 0; i < SEGMENTS && o.segments; i++)
        if ((fd[i] = memfd_create(names[i], MFD_CLOEXEC)) < 0)
            fail(strerror(errno));
    config.stats_fd = fd[0];
    config.state_fd = fd[1];
    config.breadcrumb_fd = fd[2];

    uint64_t wall = clock_ns(CLOCK_MONOTONIC);
    smos_shard_t *shard = smos_shard_create(&config, error);
    if (!shard)
        fail(error);
    smos_replay_options_t replay = {.reader = o.reader};
    if (smos_shard_open_captures(shard, &o.file, 1, &replay, error))
        fail(error);
    result_t result = {0};
    smos_box_t *box = NULL, *old = NULL;
    if (o.deliver) {
        box = smos_box_create(shard, &manifest, "1", &result, NULL, error);
        if (!box)
            fail(error);
        if (smos_shard_commit(shard, box, &old))
            fail("the module was refused at its commit");
    }
    bench_loop(shard, &o, &result);
    if (result.last & SMOS_RUN_FAILED)
        fail(smos_shard_error(shard));

    printf("{\"packets\": %" PRIu64 ", \"flows\": %" PRIu64 ", \"stream_bytes\": [%" PRIu64 ", %" PRIu64 "], \"calls\": %" PRIu64 ", \"records\": %" PRIu64 ", \"cpu_ns\": %" PRIu64
           ", \"wall_ns\": %" PRIu64 ", \"max_flows\": %" PRIu64,
           counter(shard, "packets"), counter(shard, "flows_made"), result.stream_bytes[0], result.stream_bytes[1], result.calls, result.records,
           cpu_ns(),
           clock_ns(CLOCK_MONOTONIC) - wall, config.max_flows);
    if (o.mark)
        printf(", \"mark_packets\": %" PRIu64 ", \"mark_cpu_ns\": %" PRIu64 ", \"end_cpu_ns\": %" PRIu64, result.mark_packets,
               result.mark_cpu, result.end_cpu);
    if (o.segments) {
        printf(", \"alive\": %" PRIu64 ", \"memory\": %" PRIu64 ", \"segments\": {", result.alive, result.memory);
        for (int i = 0; i < SEGMENTS; i++) {
            struct stat status;
            if (fstat(fd[i], &status))
                fail(strerror(errno));
            printf("%s\"%s\": {\"size\": %lld, \"used\": %lld}", i ? ", " : "", names[i], (long long)status.st_size,
                   (long long)status.st_blocks * 512);
        }
        printf("}");
    }
    printf(", \"counters\": ");
    print_counters(shard);
    printf("}\n");
    smos_shard_destroy(shard);
    return 0;
}
