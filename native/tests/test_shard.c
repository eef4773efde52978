/* A shard's life and its bounds: memory, ports that fail, what init() may call, a full table. */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "conversation.h"
#include "module/module.h"

static uint64_t mapped(const smos_shard_t *s)
{
    const smos__region_t *regions[] = {&s->state_region, &s->table_region, &s->stats_region, &s->defrag_region, &s->queue_region};
    uint64_t bytes = smos__region_bytes(sizeof *s) + 2 * (uint64_t)s->outbox.packer.size + 2 * SMOS__RECORDS * sizeof *s->records;
    for (size_t i = 0; i < sizeof regions / sizeof *regions; i++) bytes += regions[i]->bytes;
    return bytes;
}

/* Whatever the bound, what the shard lays out is within it, and uses most of it. */
static void test_memory_stays_within_its_bound(void)
{
    char error[SMOS_ERROR_SIZE];
    smos_config_t c;
    smos_config_default(&c);
    CHECK(smos_config_memory(&c, 1 << 20) < 0);
    CHECK_EQ(c.max_flows, 1000000); /* a refusal leaves it alone */
    for (uint64_t bytes = 16 << 20; bytes < (uint64_t)48 << 30; bytes += bytes / 5 + 4099) {
        smos_config_default(&c);
        CHECK_EQ(smos_config_memory(&c, bytes), 0);
        smos_shard_t *s = smos_shard_create(&c, error);
        CHECK(s != NULL);
        CHECK_EQ(mapped(s), smos__shard_bytes(&c));
        CHECK(mapped(s) + (1 << 20) <= bytes);
        CHECK(mapped(s) + (1 << 20) + 8192 > bytes - bytes / 50 || c.max_flows == 200000000);
        smos_shard_destroy(s);
    }
}

static int mappings(void)
{
    int lines = 0, c;
    FILE *file = fopen("/proc/self/maps", "r");
    CHECK(file != NULL);
    while ((c = getc(file)) != EOF) lines += c == '\n';
    fclose(file);
    return lines;
}

/* What is no ring is refused, as often as it is tried, and leaves nothing mapped. */
static void test_a_bad_ring_leaves_nothing_behind(void)
{
    char error[SMOS_ERROR_SIZE];
    smos_config_t c;
    smos_config_default(&c);
    CHECK_EQ(smos_config_memory(&c, 64 << 20), 0);
    smos_shard_t *s = smos_shard_create(&c, error);
    int fd = memfd_create("no ring", MFD_CLOEXEC);
    CHECK_EQ(ftruncate(fd, 1 << 20), 0);
    CHECK(smos_shard_open_ring(s, fd, error) < 0);
    int before = mappings();
    for (int i = 0; i < 50; i++) {
        error[0] = '\0';
        CHECK(smos_shard_open_ring(s, fd, error) < 0);
        CHECK(strstr(error, "no hand-over ring") != NULL);
    }
    CHECK(mappings() < before + 10);
    close(fd);
    smos_shard_destroy(s);
}

static bool holds(const uint8_t *data, uint64_t size, const char *text)
{
    return memmem(data, size, text, strlen(text)) != NULL;
}

/* init() runs beside the packet thread: what that thread alone may touch is refused; log lines are published once the module is there. */
static void test_init_touches_nothing_of_the_packet_thread(void)
{
    static const smos_module_t M = {SMOS_MODULE_HEADER, .name = "early"};
    const smos_api_t *api = smos_shard_api();
    const uint8_t *events;
    smos_flow_info_t info;
    talk_t *t = talk();
    smos_shard_t *s = shard_of_talk(t);
    smos_shard_set_publish(s, SMOS_PUBLISH_LOG | SMOS_PUBLISH_MODULES);
    smos_box_t *box = module_of(s, &M);
    smos_engine_t *engine = smos_shard_engine(s);
    smos__box_preparing = box;
    CHECK_EQ(api->emit(engine, "topic", "x", 1), -EPERM);
    CHECK_EQ(api->drop(engine), -EPERM);
    CHECK_EQ(api->reset(engine, 1), -EPERM);
    CHECK_EQ(api->stop(engine, 1, SMOS_BOTH), -EPERM);
    CHECK_EQ(api->flow_info(engine, 1, &info), -EPERM);
    for (int i = 0; i < 100; i++) api->log(engine, SMOS_LOG_INFO, i ? "more" : "ready to serve");
    smos__box_preparing = NULL;
    CHECK_EQ(smos_shard_take_events(s, &events), 0);
    smos_box_t *refused = module_of(s, &M);
    smos__box_preparing = refused;
    api->log(engine, SMOS_LOG_INFO, "never heard");
    smos__box_preparing = NULL;
    smos_box_free(refused);
    commit(s, box);
    uint64_t size = smos_shard_take_events(s, &events);
    CHECK(holds(events, size, "ready to serve") && holds(events, size, "early"));
    CHECK(!holds(events, size, "never heard"));
    CHECK_EQ(smos_shard_take_events(s, &events), 0);
    run_to_end(s, t);
}

int main(void)
{
    RUN(test_memory_stays_within_its_bound);
    RUN(test_a_bad_ring_leaves_nothing_behind);
    RUN(test_init_touches_nothing_of_the_packet_thread);
    return 0;
}
