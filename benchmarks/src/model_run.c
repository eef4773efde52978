/* model_run: one shard over a capture with a module of a given shape, for what the programming model costs; one JSON line.
 *
 *   --module FILE   a shared object, with --set NAME=VALUE, or NAME=@FILE, for its parameters
 *   --register N    each flow registers N handlers of its own at its first packet, another set of N for every fourth flow;
 *                   tells the nanoseconds of one registration and how many subscription sets there were
 */
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "measure.h"
#include "shardmos/engine.h"

static const smos_api_t *api;
static smos_engine_t *engine;
static int registrations;
static uint64_t registered, registering_ns, calls, flows_made;

static void empty(void *self, const smos_call_t *call)
{
    (void)self;
    (void)call;
}

static void registers(void *self, const smos_call_t *call)
{
    uint64_t begin = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    uintptr_t kind = ++flows_made % 4 == 0;
    (void)self;
    for (int i = 0; i < registrations; i++)
        if (api->register_handler(engine, 0, call->flow, SMOS_GAP, 0, SMOS_BOTH, empty, (void *)(uintptr_t)(i + 1 + (int)kind * 100)) < 0) {
            fprintf(stderr, "model_run: %s\n", api->last_error(engine));
            exit(1);
        }
    registering_ns += clock_ns(CLOCK_THREAD_CPUTIME_ID) - begin;
    registered += (uint64_t)registrations;
}

/* Not inlined: callgrind collects in this function only. */
__attribute__((noinline)) static void bench_loop(smos_shard_t *shard)
{
    while (!(smos_shard_run(shard, INT64_MAX) & (SMOS_RUN_END | SMOS_RUN_FAILED))) {
    }
}

static void fail(const char *what)
{
    fprintf(stderr, "model_run: %s\n", what);
    exit(1);
}

static void check(int status)
{
    if (status < 0)
        fail(api->last_error(engine));
}

static const char *parameter(char *text)
{
    static char whole[1 << 20];
    char *file = strstr(text, "=@");
    if (!file)
        return text;
    FILE *from = fopen(file + 2, "re");
    if (!from)
        fail("--set: the file cannot be read");
    size_t name = (size_t)(file + 1 - text);
    memcpy(whole, text, name);
    whole[name + fread(whole + name, 1, sizeof whole - name - 1, from)] = 0;
    fclose(from);
    return whole;
}

int main(int argc, char **argv)
{
    static const struct option known[] = {{"module", 1, NULL, 'm'}, {"set", 1, NULL, 's'}, {"register", 1, NULL, 'r'}, {"max-flows", 1, NULL, 'f'}, {0}};
    int c;
    uint64_t max_flows = 1 << 20;
    const char *module = NULL, *params[8];
    int param_count = 0;
    char error[SMOS_ERROR_SIZE];
    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1)
        switch (c) {
        case 'm': module = optarg; break;
        case 's':
            if (param_count < 8)
                params[param_count++] = parameter(optarg);
            break;
        case 'r': registrations = atoi(optarg); break;
        case 'f': max_flows = strtoull(optarg, NULL, 10); break;
        default: return 2;
        }
    if (optind != argc - 1)
        return fputs("usage: model_run FILE [--register N | --module FILE [--set NAME=VALUE]...] [--max-flows N]\n", stderr), 2;
    smos_config_t config;
    smos_config_default(&config);
    config.max_flows = max_flows;
    config.detail = 0;
    smos_shard_t *shard = smos_shard_create(&config, error);
    if (!shard)
        fail(error);
    api = smos_shard_api();
    engine = smos_shard_engine(shard);
    if (module) {
        int fd = open(module, O_RDONLY | O_CLOEXEC);
        smos_box_t *old, *box = smos_box_load(shard, fd, module, "1", params, param_count, error);
        if (!box || smos_shard_commit(shard, box, &old) < 0)
            fail(error);
        if (fd >= 0)
            close(fd);
    }
    if (registrations) {
        const smos_module_t manifest = {SMOS_MODULE_HEADER, .name = "model"};
        smos_box_t *old, *box = smos_box_create(shard, &manifest, "1", shard, NULL, error);
        if (!box)
            fail(error);
        smos_shard_use(shard, box);
        check(api->register_handler(engine, 0, 0, SMOS_CONN_START, SMOS_SENDER, SMOS_BOTH, registers, NULL));
        smos_shard_use(shard, NULL);
        if (smos_shard_commit(shard, box, &old) < 0)
            fail("the module cannot be committed");
    }
    const char *path = argv[optind];
    if (smos_shard_open_captures(shard, &path, 1, NULL, error) < 0)
        fail(error);
    bench_loop(shard);
    const smos_stats_header_t *h = smos_shard_stats(shard);
    const smos_stats_module_t *m = (const smos_stats_module_t *)((const char *)h + h->modules_offset);
    calls = m[0].calls;
    printf("{\"calls\": %" PRIu64 ", \"flows\": %" PRIu64 ", \"registered\": %" PRIu64 ", \"registering_ns\": %" PRIu64 ", \"memory\": %" PRIu64 "}\n", calls, api->flow_count(engine), registered,
           registering_ns, memory_bytes());
    return 0;
}
