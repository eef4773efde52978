/* Every allocation of the library fails once, each in its turn (malloc, calloc, realloc, strdup and mmap, wrapped by the linker). What could not be made is
 * refused with one line that says so; what was running goes on; nothing is left allocated or mapped. Libraries below (libpcap, zlib, zstd) are not
 * wrapped. */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include "conversation.h"
#include "module/module.h"

/* ---- the allocator that fails ---- */

#define LIVE_MAX 4096

static bool armed;
static long asked, fail_at; /* this allocation fails; 0: none */
static struct { void *at; size_t bytes; } live[LIVE_MAX]; /* bytes 0: of malloc */
static int live_count;

void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);
char *__real_strdup(const char *);
void __real_free(void *);
void *__real_mmap(void *, size_t, int, int, int, off_t);
int __real_munmap(void *, size_t);
void *__wrap_malloc(size_t);
void *__wrap_calloc(size_t, size_t);
void *__wrap_realloc(void *, size_t);
char *__wrap_strdup(const char *);
void __wrap_free(void *);
void *__wrap_mmap(void *, size_t, int, int, int, off_t);
int __wrap_munmap(void *, size_t);

static bool fails(void) { return armed && ++asked == fail_at; }

static void *born(void *at, size_t bytes)
{
    if (!armed || !at || at == MAP_FAILED) return at;
    CHECK(live_count < LIVE_MAX);
    live[live_count].at = at;
    live[live_count++].bytes = bytes;
    return at;
}

static void gone(const void *at, size_t bytes)
{
    for (int i = live_count; i-- > 0;) {
        if (live[i].at != at) continue;
        CHECK(!live[i].bytes == !bytes);
        live[i] = live[--live_count];
        return;
    }
}

void *__wrap_malloc(size_t n) { return fails() ? NULL : born(__real_malloc(n), 0); }
void *__wrap_calloc(size_t n, size_t size) { return fails() ? NULL : born(__real_calloc(n, size), 0); }
char *__wrap_strdup(const char *text) { return fails() ? NULL : born(__real_strdup(text), 0); }

void *__wrap_realloc(void *old, size_t n)
{
    if (fails()) return NULL;
    gone(old, 0);
    return born(__real_realloc(old, n), 0);
}

void __wrap_free(void *at)
{
    gone(at, 0);
    __real_free(at);
}

void *__wrap_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    if (!fails()) return born(__real_mmap(at, n, protection, flags, fd, offset), n);
    errno = ENOMEM;
    return MAP_FAILED;
}

int __wrap_munmap(void *at, size_t n)
{
    gone(at, n);
    return __real_munmap(at, n);
}

/* ---- captures in memory ---- */

enum { PLAIN, PACKED, CAPTURES };
static char path[CAPTURES][40];
static int fds[CAPTURES];
static int packets;

static void make_captures(void)
{
    talk_t *t = talk();
    for (int n = 0; n < 3; n++) {
        handshake(t, n);
        segment(t, n, 0, SMOS__ACK, 105, 501, "o!"); /* behind a hole */
        segment(t, n, 0, SMOS__ACK, 101, 501, "hell");
        segment(t, n, 1, SMOS__ACK, 501, 107, "world");
        goodbye(t, n, 6, 5);
    }
    packets = t->count;
    for (int k = 0; k < CAPTURES; k++) {
        fds[k] = memfd_create("capture", MFD_CLOEXEC);
        snprintf(path[k], sizeof path[k], "/proc/self/fd/%d", fds[k]);
    }
    uint8_t head[24] = "\xd4\xc3\xb2\xa1\2\0\4\0";
    head[17] = 1, head[20] = 1; /* 256 bytes; Ethernet */
    gzFile packed = gzopen(path[PACKED], "wb");
    CHECK(packed && write(fds[PLAIN], head, 24) == 24 && gzwrite(packed, head, 24) == 24);
    for (int i = 0; i < t->count; i++) {
        const smos__frame_t *f = &t->frames[i];
        uint32_t record[4] = {(uint32_t)(f->time_ns / 1000000000), (uint32_t)(f->time_ns % 1000000000 / 1000), f->caplen, f->len};
        CHECK(write(fds[PLAIN], record, 16) == 16 && write(fds[PLAIN], f->data, f->caplen) == (ssize_t)f->caplen);
        CHECK(gzwrite(packed, record, 16) == 16 && gzwrite(packed, f->data, f->caplen) == (int)f->caplen);
    }
    gzclose(packed);
    talk_close(&t->port);
    free(t);
}

/* ---- a module that asks for much ---- */

static const smos_api_t *api;
static uint64_t delivered;

static void counted(void *self, const smos_call_t *call)
{
    (void)self;
    delivered += call->length;
}

static void nothing(void *self, const smos_call_t *call)
{
    (void)self;
    (void)call;
}

static int always(void *self, const smos_call_t *call)
{
    (void)self;
    (void)call;
    return 1;
}

static void ask(int status) { CHECK(status == 0 || status == -ENOMEM || status == -ENOSPC || status == -ENOTCONN || status == -ENOENT || status == -ENODATA); }

static void at_start(void *self, const smos_call_t *call)
{
    smos_engine_t *e = smos_shard_engine(self);
    uint32_t event = 0;
    uint64_t timer;
    char buffer[8];
    smos_sock_t sock = 0;
    smos_range_t ranges[4];
    ask(api->define_event(e, SMOS_NEW_DATA, always, "arg", 4, &event));
    if (event) ask(api->register_handler(e, call->sock, call->flow, event, 0, SMOS_BOTH, nothing, NULL));
    ask(api->set_timer(e, call->flow, 1000000, 0, nothing, NULL, &timer));
    ask(api->set_option(e, call->sock, call->flow, SMOS_BOTH, SMOS_OPT_HISTORY, 64));
    ask(api->set_context(e, call->sock, call->flow, self));
    if (!api->socket(e, SMOS_STREAM, &sock)) {
        int status = api->bind(e, sock, "tcp", NULL);
        if (status == -EINVAL)
            CHECK(strstr(api->last_error(e), "memory")); /* the filter's compiler had none */
        else
            ask(status);
        ask(api->register_handler(e, sock, 0, SMOS_CONN_END, 0, SMOS_BOTH, nothing, NULL));
        ask(api->close(e, sock, 0));
    }
    int64_t read = api->peek(e, call->sock, call->flow, SMOS_SERVER, buffer, sizeof buffer, NULL);
    CHECK(read >= 0 || read == -ENOTCONN || read == -ENODATA || read == -ENOMEM || read == -EINVAL);
    CHECK(api->buffered(e, call->sock, call->flow, SMOS_SERVER, ranges, 4) < 5);
    ask(api->emit(e, "began", "x", 1));
}

static const smos_registration_t REGISTRATIONS[] = {
    {.event = SMOS_CONN_START, .hook = SMOS_SENDER, .side = SMOS_BOTH, .handler = at_start}, {.event = SMOS_NEW_DATA, .side = SMOS_BOTH, .handler = counted},
    {.event = SMOS_GAP, .side = SMOS_BOTH, .handler = nothing}, {.event = SMOS_EVENT_COUNT},
};
static const smos_param_t PARAMETERS[] = {{"level", "int", "3", ""}, {"name", "str", NULL, ""}, {NULL, NULL, NULL, NULL}};
static const smos_module_t MODULE = {SMOS_MODULE_HEADER, .name = "greedy", .filter = "tcp", .state_size = 32, .params = PARAMETERS, .registrations = REGISTRATIONS};

/* ---- what is tried ---- */

static char error[SMOS_ERROR_SIZE];

/* Refused: a line says why. */
static void refused(const char *what)
{
    if (!error[0] || strchr(error, '\n')) fprintf(stderr, "%s, allocation %ld: \"%s\"\n", what, fail_at, error);
    CHECK(error[0] && !strchr(error, '\n'));
}

static smos_shard_t *make_shard(void)
{
    smos_config_t c;
    smos_config_default(&c);
    c.max_flows = 64;
    c.buffer_bytes = 65536;
    c.defrag_bytes = 1 << 18;
    c.checksums = 1;
    c.records = 1;
    c.publish = SMOS_PUBLISH_MODULES | SMOS_PUBLISH_ANOMALIES | SMOS_PUBLISH_LOG;
    smos_shard_t *s = smos_shard_create(&c, error);
    if (!s) refused("create");
    return s;
}

static void add_module(smos_shard_t *s, const char *name)
{
    static const char *const GIVEN[] = {"level=7", "name=x"};
    smos_box_t *old = NULL;
    smos_module_t m = MODULE;
    m.name = name;
    smos_box_t *box = smos_box_create(s, &m, "1", s, NULL, error);
    if (!box) {
        refused("module");
        return;
    }
    box->module.params = PARAMETERS;
    if (smos__box_parameters(box, GIVEN, 2, error) < 0) {
        refused("parameters");
        smos_box_free(box);
        return;
    }
    smos__box_preparing = box; /* as its init() would */
    smos_engine_t *e = smos_shard_engine(s);
    uint32_t event;
    smos_sock_t sock;
    ask(api->define_event(e, SMOS_NEW_DATA, always, "a", 2, &event));
    ask(api->socket(e, SMOS_RAW, &sock));
    ask(api->set_timer(e, 0, 1000000, 1000000, nothing, NULL, NULL));
    api->log(e, SMOS_LOG_INFO, "here");
    smos__box_preparing = NULL;
    int status = smos_shard_commit(s, box, &old);
    CHECK(status == 0 || status == -ENOMEM || status == -ENOSPC);
    smos_box_free(status ? box : old);
}

static uint64_t total(const smos_shard_t *s, smos__counter_t first, smos__counter_t last)
{
    uint64_t sum = 0;
    for (int i = (int)first; i <= (int)last; i++) sum += s->counters[i];
    return sum;
}

/* To the end, which must come; what a reader could not allocate may end it early. */
static void run(smos_shard_t *s, bool whole)
{
    const smos_flow_info_t *records;
    const uint8_t *events;
    uint32_t bits;
    do {
        bits = smos_shard_run(s, 1000000000);
        smos_shard_take_records(s, &records);
        smos_shard_take_events(s, &events);
    } while (!(bits & (SMOS_RUN_END | SMOS_RUN_FAILED)));
    if (bits & SMOS_RUN_FAILED) CHECK(!whole && smos_shard_error(s)[0]);
    while (!(smos_shard_finish(s, SMOS_END_CAPTURE, 0) & SMOS_RUN_END)) smos_shard_take_records(s, &records);
    if (whole) CHECK_EQ(s->counters[SMOS__C_packets], packets);
    CHECK_EQ(s->counters[SMOS__C_packets], total(s, SMOS__C_packets_flow, SMOS__C_drop_no_memory));
    CHECK_EQ(s->counters[SMOS__C_flows_made], total(s, SMOS__C_end_fin, SMOS__C_end_stopped) - s->counters[SMOS__C_end_idle_early]);
    CHECK_EQ(s->arena.header->in_use, 0);
    CHECK_EQ(smos__pool_used(s->arena.pool), 0);
    if (whole) CHECK_EQ(s->counters[SMOS__C_stream_bytes], 3 * 11);
}

/* Records and two modules over one capture read in place. */
static void over_a_file(void)
{
    const char *paths[] = {path[PLAIN]};
    smos_shard_t *s = make_shard();
    if (!s) return;
    if (smos_shard_set_filter(s, "ip", error) < 0) refused("filter");
    add_module(s, "first");
    add_module(s, "second");
    add_module(s, "first"); /* another version */
    delivered = 0;
    if (smos_shard_open_captures(s, paths, 1, NULL, error) < 0)
        refused("open");
    else
        run(s, true);
    CHECK(delivered <= 2 * 3 * 11);
    smos_shard_destroy(s);
}

static void over_captures(const char *const *paths, int count, const smos_replay_options_t *how)
{
    smos_shard_t *s = make_shard();
    if (!s) return;
    if (smos_shard_open_captures(s, paths, count, how, error) < 0)
        refused("open");
    else
        run(s, false);
    smos_shard_destroy(s);
}

static void over_a_packed_file(void) { over_captures((const char *[]){path[PACKED]}, 1, NULL); }
static void over_two_files(void) { over_captures((const char *[]){path[PLAIN], path[PACKED]}, 2, NULL); }
static void at_a_rate(void) { over_captures((const char *[]){path[PLAIN]}, 1, &(smos_replay_options_t){.rate = 1e9}); }
static void with_libpcap(void) { over_captures((const char *[]){path[PLAIN]}, 1, &(smos_replay_options_t){.reader = 1}); }

static void dealt_out(void)
{
    const char *paths[] = {path[PACKED]};
    int rings[] = {memfd_create("ring", MFD_CLOEXEC), memfd_create("ring", MFD_CLOEXEC)};
    smos_dealer_t *d = smos_dealer_open(paths, 1, NULL, rings, 2, 1, 1 << 20, error);
    if (!d) {
        refused("dealer");
    } else {
        while (!(smos_dealer_run(d, 1000000000) & (SMOS_RUN_END | SMOS_RUN_FAILED))) continue;
        for (int i = 0; i < 2; i++) {
            smos_shard_t *s = make_shard();
            if (s && smos_shard_open_ring(s, rings[i], error) < 0)
                refused("ring");
            else if (s)
                run(s, false);
            smos_shard_destroy(s);
        }
        smos_dealer_close(d);
    }
    close(rings[0]);
    close(rings[1]);
}

/* Its allocations one after the other, until it comes through without one that fails. */
static void each_fails(void (*scenario)(void))
{
    for (fail_at = 1;; fail_at++) {
        asked = 0;
        error[0] = '\0';
        armed = true;
        scenario();
        armed = false;
        if (live_count) fprintf(stderr, "allocation %ld failed: %d left, the last of %zu bytes\n", fail_at, live_count, live[live_count - 1].bytes);
        CHECK_EQ(live_count, 0);
        if (asked < fail_at) break;
    }
    CHECK(fail_at > 5);
    printf("%ld allocations: ", fail_at - 1);
}

static void test_over_a_file(void) { each_fails(over_a_file); }
static void test_over_a_packed_file(void) { each_fails(over_a_packed_file); }
static void test_over_two_files(void) { each_fails(over_two_files); }
static void test_at_a_rate(void) { each_fails(at_a_rate); }
static void test_with_libpcap(void) { each_fails(with_libpcap); }
static void test_dealt_out(void) { each_fails(dealt_out); }

int main(void)
{
    api = smos_shard_api();
    make_captures();
    RUN(test_over_a_file);
    RUN(test_over_a_packed_file);
    RUN(test_over_two_files);
    RUN(test_at_a_rate);
    RUN(test_with_libpcap);
    RUN(test_dealt_out);
    return 0;
}
