/* model_run: one shard over a capture with a module of a given shape, for what the programming model costs; one JSON line.
 *
 *   --handlers N    N empty handlers of PKT_IN at the SENDER hook, each on a socket of its own
 *   --together N    the same, all on one socket
 *   --predicates N  N user-defined events over PKT_IN, each with a filter that says yes and an empty handler
 *   --module FILE   a shared object, with --set NAME=VALUE, or NAME=@FILE, for its parameters
 *   --elsewhere     the same, registered for ERROR, which does not come: what the module costs beside its calls
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
static uint32_t event = SMOS_PKT_IN;
static uint64_t registered, registering_ns, calls, flows_made;

static void empty(void *self, const smos_call_t *call)
{
    (void)self;
    (void)call;
}

static int yes(void *self, const smos_call_t *call)
{
    (void)self;
    (void)call;
    return 1;
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

static void handler_of(smos_sock_t sock, uint32_t of, int number)
{
    check(api->register_handler(engine, sock, 0, of, event == SMOS_PKT_IN ? SMOS_SENDER : 0, SMOS_BOTH, empty, (void *)(uintptr_t)number));
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
    static const struct option known[] = {{"handlers", 1, NULL, 'h'}, {"together", 1, NULL, 't'}, {"predicates", 1, NULL, 'p'}, {"elsewhere", 0, NULL, 'e'}, {"module", 1, NULL, 'm'}, {"set", 1, NULL, 's'}, {"register", 1, NULL, 'r'}, {"max-flows", 1, NULL, 'f'}, {0}};
    int handlers = 0, together = 0, predicates = 0, c;
    uint64_t max_flows = 1 << 20;
    const char *module = NULL, *params[8];
    int param_count = 0;
    char error[SMOS_ERROR_SIZE];
    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1)
        switch (c) {
        case 'h': handlers = atoi(optarg); break;
        case 't': together = atoi(optarg); break;
        case 'p': predicates = atoi(optarg); break;
        case 'e': event = SMOS_ERROR; break;
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
        return fputs("usage: model_run FILE [--handlers N | --together N | --predicates N | --register N | --module FILE [--set NAME=VALUE]...] [--elsewhere] [--max-flows N]\n", stderr), 2;
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
    if (handlers || together || predicates || registrations) {
        const smos_module_t manifest = {SMOS_MODULE_HEADER, .name = "model"};
        smos_box_t *old, *box = smos_box_create(shard, &manifest, "1", shard, NULL, error);
        if (!box)
            fail(error);
        smos_shard_use(shard, box);
        for (int i = 0; i < handlers; i++) {
            smos_sock_t sock = 0;
            if (i)
                check(api->socket(engine, SMOS_STREAM, &sock));
            handler_of(sock, event, 0);
        }
        for (int i = 0; i < together; i++)
            handler_of(0, event, i);
        for (int i = 0; i < predicates; i++) {
            uint32_t defined;
            check(api->define_event(engine, event, yes, &i, sizeof i, &defined));
            handler_of(0, defined, 0);
        }
        if (registrations)
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
