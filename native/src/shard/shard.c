/* A shard's life and its loop. */
#include "shard/shard.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "wire/prefix.h"

#define SWEEP_PER_BURST 64
#define BURSTS_PER_PUBLISH 256
#define BURSTS_PER_CLOCK 4 /* full ones between two looks at the clock */
#define FINISH_PER_CALL 64 /* between two looks at whether records want taking */
#define HOT_WAIT_NS 300000 /* between two words of an idle worker about how far it is */
#define FINISH_AHEAD 4 /* slots fetched before they are looked at */


static int64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}


static int random_key(uint64_t *key, size_t words)
{
    return getrandom(key, words * sizeof *key, 0) == (ssize_t)(words * sizeof *key) ? 0 : -EIO;
}


static int64_t timeout(int64_t configured) { return configured ? configured : SMOS__NEVER; }


static void set_timeouts(smos_shard_t *s)
{
    const smos_config_t *c = &s->config;
    s->timeout[SMOS__CLASS_EMBRYONIC] = timeout(c->timeout_syn_ns);
    s->timeout[SMOS__CLASS_ESTABLISHED] = timeout(c->live ? c->timeout_established_ns : 0);
    s->timeout[SMOS__CLASS_CLOSED] = timeout(c->timeout_closed_ns);
    s->timeout[SMOS__CLASS_RESET] = timeout(c->timeout_reset_ns);
    s->timeout[SMOS__CLASS_UDP] = timeout(c->timeout_udp_ns);
    s->timeout[SMOS__CLASS_ICMP] = timeout(c->timeout_icmp_ns);
}


static int open_table(smos_shard_t *s)
{
    int status = smos__region_map(&s->table_region, -1, smos__table_bytes((uint32_t)s->config.max_flows));
    if (status) return status;
    smos__region_huge(&s->table_region);
    smos__table_init(&s->table, s->table_region.memory, (uint32_t)s->config.max_flows);
    const uint64_t *given = s->config.hash_key;
    if (given[0] | given[1] | given[2] | given[3]) {
        for (int i = 0; i < 6; i++) s->table.key[i] = given[i % 4] * (i < 4 ? 1 : 0x9e3779b97f4a7c15u) ^ (uint64_t)i;
        return 0;
    }
    return random_key(s->table.key, 6);
}


static int open_queue(smos_shard_t *s)
{
    uint32_t capacity = (uint32_t)s->config.max_flows;
    int status = smos__region_map(&s->queue_region, -1, smos__queue_bytes(capacity));
    if (!status) smos__queue_init(&s->unconfirmed, s->queue_region.memory);
    return status;
}


static int open_defrag(smos_shard_t *s)
{
    smos__defrag_config_t c;
    if (!s->config.defrag_bytes) return 0;
    smos__defrag_config(&s->config, &c);
    int status = random_key(c.key, 2);
    if (!status) status = smos__region_map(&s->defrag_region, -1, smos__defrag_size(&c));
    if (!status) s->defrag = smos__defrag_init(s->defrag_region.memory, &c);
    return status;
}


static bool policies_known(const smos_prefix_policy_t *list, uint32_t count, uint8_t policies)
{
    if (count > SMOS_MAX_PREFIXES) return false;
    for (uint32_t i = 0; i < count; i++)
        if (list[i].bits > 128 || (list[i].version != 4 && list[i].version != 6) || list[i].policy >= policies) return false;
    return true;
}


static void take_publish(smos_shard_t *s, uint32_t publish)
{
    s->config.publish = (uint8_t)publish;
    s->collect = s->config.records || publish & SMOS_PUBLISH_FLOWS;
    s->events.all_streams = s->collect || publish & SMOS_PUBLISH_ANOMALIES; /* some are of streams */
}


smos_shard_t *smos_shard_create(const smos_config_t *config, char *error)
{
    if (config->size != sizeof *config) return snprintf(error, SMOS_ERROR_SIZE, "smos_config_t is of another version: call smos_config_default"), NULL;
    if (!config->workers || config->worker >= config->workers) return snprintf(error, SMOS_ERROR_SIZE, "worker %u of %u cannot be", config->worker, config->workers), NULL;
    if (!config->max_flows || config->max_flows > 1000000000) return snprintf(error, SMOS_ERROR_SIZE, "max_flows must be between 1 and 1,000,000,000"), NULL;
    if (config->defrag_policy >= SMOS__DEFRAG_POLICIES || config->overlap_policy >= SMOS__OVERLAP_POLICIES)
        return snprintf(error, SMOS_ERROR_SIZE, "unknown policy for overlapping data or fragments"), NULL;
    if (!policies_known(config->overlap_prefixes, config->overlap_prefix_count, SMOS__OVERLAP_POLICIES) ||
        !policies_known(config->defrag_prefixes, config->defrag_prefix_count, SMOS__DEFRAG_POLICIES))
        return snprintf(error, SMOS_ERROR_SIZE, "at most %d networks can have a policy of their own, each one that is known", SMOS_MAX_PREFIXES), NULL;
    if (config->flow_full > SMOS_FULL_STOP || config->worker_full > SMOS_FULL_STOP || config->table_full > 1 || config->acked_gaps > SMOS_GAPS_WITH_DATA)
        return snprintf(error, SMOS_ERROR_SIZE, "unknown policy for a full buffer or table, or for gaps"), NULL;
    smos_shard_t *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED) return snprintf(error, SMOS_ERROR_SIZE, "out of memory"), NULL;
    s->config = *config;
    s->flow = SMOS__NO_FLOW;
    s->tcp = (smos__tcp_config_t){config->flow_buffer, config->flow_segments > UINT16_MAX ? UINT16_MAX : config->flow_segments, config->gap_bytes, config->gap_segments,
                                  config->gap_ns, config->depth, config->overlap_policy, config->urgent_policy, config->detail,
                                  config->acked_gaps == SMOS_GAPS_AT_ONCE || (config->acked_gaps == SMOS_GAPS_AUTO && config->live), config->flow_full, config->worker_full};
    smos__prefixes_sort(s->config.overlap_prefixes, s->config.overlap_prefix_count);
    smos__prefixes_sort(s->config.defrag_prefixes, s->config.defrag_prefix_count);
    s->owner_begun = smos__owner_begin4(config->owner_seed);
    set_timeouts(s);
    int status = smos__region_map(&s->state_region, config->state_fd, smos__arena_bytes((uint32_t)config->max_flows, config->buffer_bytes));
    if (!status) {
        smos__region_huge(&s->state_region);
        smos__arena_init(&s->arena, s->state_region.memory, (uint32_t)config->max_flows, config->buffer_bytes);
        status = open_table(s);
        if (!status) status = open_queue(s);
    }
    if (!status) status = open_defrag(s);
    if (!status) status = smos__segments_open(s);
    if (!status) status = smos__events_init(&s->events, &s->arena);
    if (!status) status = smos__outbox_init(&s->outbox, SMOS__OUTBOX_BYTES, config->worker);
    if (!status) {
        s->records = malloc(SMOS__RECORDS * sizeof *s->records);
        s->records_taken = malloc(SMOS__RECORDS * sizeof *s->records);
        if (!s->records || !s->records_taken) status = -ENOMEM;
    }
    if (status) {
        snprintf(error, SMOS_ERROR_SIZE, "a shard of %llu flows and %llu bytes of buffers cannot be laid out: %s (give it less: --memory)",
                 (unsigned long long)config->max_flows, (unsigned long long)config->buffer_bytes, strerror(-status));
        smos_shard_destroy(s);
        return NULL;
    }
    s->under = (smos__tcp_t){.pool = s->arena.pool, .config = &s->tcp, .sink = &smos__shard_sink, .context = s, .refused = &s->refused};
    smos__timers_init(&s->timers);
    take_publish(s, config->publish);
    smos__stats_publish(s);
    return s;
}


void smos_shard_destroy(smos_shard_t *s)
{
    if (!s) return;
    if (s->port) s->port->close(s->port);
    smos__handover_close(s);
    smos__region_unmap(&s->ring_region);
    smos__filter_free(s->filter);
    for (int i = 0; i < SMOS_MAX_MODULES; i++) {
        const smos__socket_t *socket = s->events.sockets[i];
        if (!socket || socket->box->sockets[0] != socket) continue;
        smos_box_t *box = socket->box;
        for (int k = 0; k < SMOS_MAX_MODULES; k++)
            if (s->events.sockets[k] && s->events.sockets[k]->box == box) s->events.sockets[k] = NULL;
        smos_box_free(box);
    }
    smos__events_free(&s->events);
    smos__outbox_free(&s->outbox);
    smos__timers_free(&s->timers);
    if (s->arena.header) smos__edits_free(s);
    smos__history_free(&s->history);
    free(s->records);
    free(s->records_taken);
    smos__region_unmap(&s->state_region);
    smos__region_unmap(&s->table_region);
    smos__region_unmap(&s->queue_region);
    smos__region_unmap(&s->stats_region);
    smos__region_unmap(&s->defrag_region);
    munmap(s, sizeof *s);
}


/* ---- ports ---- */

int smos_shard_open_captures(smos_shard_t *s, const char *const *paths, int count, const smos_replay_options_t *o, char *error)
{
    if (s->port) return snprintf(error, SMOS_ERROR_SIZE, "the shard has a port already"), -EBUSY;
    smos__replay_t replay = {0};
    if (o) replay = (smos__replay_t){o->loop, o->rate, o->as_recorded, o->reader};
    s->port = smos__port_open_captures(paths, count, &replay, error);
    return s->port ? 0 : -EINVAL;
}


int smos_shard_open_ring(smos_shard_t *s, int fd, char *error)
{
    if (s->port) return snprintf(error, SMOS_ERROR_SIZE, "the shard has a port already"), -EBUSY;
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_size <= 0) return snprintf(error, SMOS_ERROR_SIZE, "descriptor %d is no hand-over ring", fd), -EINVAL;
    void *memory = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) return snprintf(error, SMOS_ERROR_SIZE, "the hand-over ring cannot be mapped: %s", strerror(errno)), -errno;
    s->ring_region = (smos__region_t){memory, (size_t)st.st_size};
    smos__ring_t *ring = smos__ring_attach(memory, s->ring_region.bytes);
    if (ring)
        s->port = smos__port_open_ring(ring, error);
    else
        snprintf(error, SMOS_ERROR_SIZE, "descriptor %d is no hand-over ring", fd);
    if (s->port) return 0;
    smos__ring_free(ring);
    smos__region_unmap(&s->ring_region);
    return -EINVAL;
}


int smos_shard_write(smos_shard_t *s, const char *path, char *error)
{
    if (!s->port || s->port->forward) return snprintf(error, SMOS_ERROR_SIZE, "only what is read from captures can be written to one"), -EINVAL;
    smos__port_t *over = smos__port_open_write(s->port, path, error);
    if (!over) return -EIO;
    s->port = over;
    return 0;
}


int smos_shard_write_end(smos_shard_t *s, char *error) { return s->port ? smos__port_write_end(s->port, error) : 0; }


int smos_shard_set_filter(smos_shard_t *s, const char *text, char *error)
{
    char why[256];
    smos__filter_t *filter = NULL;
    if (text && text[0] && !(filter = smos__filter_compile(text, why, sizeof why)))
        return snprintf(error, SMOS_ERROR_SIZE, "bad filter \"%.120s\": %s", text, why), -EINVAL;
    smos__filter_free(s->filter);
    s->filter = filter;
    return 0;
}


int64_t smos_shard_wait_ns(const smos_shard_t *s)
{
    if (!s->port) return -1;
    if (s->port->wait_ns > 0) return s->port->wait_ns;
    if (smos__handover_is_hot(s)) return HOT_WAIT_NS;
    return s->port->fd >= 0 ? -1 : 1000000; /* unknown: a descriptor tells, or look again in a millisecond */
}



int smos_shard_fd(const smos_shard_t *s) { return s->port ? s->port->fd : -1; }
const char *smos_shard_error(const smos_shard_t *s) { return s->error; }
void smos_shard_interrupt(smos_shard_t *s) { atomic_store(&s->interrupted, 1); }
uint32_t smos_shard_flow_limit(const smos_shard_t *s) { return s->arena.header->capacity; }


/* ---- the loop ---- */

static uint32_t wanting(const smos_shard_t *s, bool idle)
{
    uint32_t bits = 0;
    if (s->record_count >= SMOS__RECORDS_WANT_TAKING || (idle && s->record_count)) bits |= SMOS_RUN_RECORDS;
    if (smos__outbox_wants_emptying(&s->outbox) || (idle && s->outbox.events)) bits |= SMOS_RUN_EVENTS;
    return bits;
}


/* Ends flows from finish_at on. True when none is left. No packet comes in between: the caller goes on until then. */
static bool finish_some(smos_shard_t *s, uint32_t reason, uint64_t report_limit)
{
    uint32_t end = s->arena.header->high_water;
    /* Many flows: forgetting the whole table costs less than taking each flow out of it. */
    if (s->finish_at == 0 && s->arena.header->in_use > s->table.count / 8) s->bulk = true;
    for (uint32_t done = 0; s->finish_at < end && done < FINISH_PER_CALL; s->finish_at++) {
        smos__flow_t *f = &s->arena.hot[s->finish_at];
        if (s->finish_at + FINISH_AHEAD < end) smos__arena_fetch(&s->arena, s->finish_at + FINISH_AHEAD);
        if (f->class_ == SMOS__CLASS_FREE) continue;
        bool report = !report_limit || s->finish_reported < report_limit;
        s->finish_reported += report;
        /* Silent for longer than its timeout: whether the hand came to it yet must not matter. */
        smos__flow_end(s, s->finish_at, smos__flow_expired(s, f, s->now_ns) ? SMOS_END_IDLE : (smos_end_reason_t)reason, report);
        done++;
    }
    if (s->finish_at < end) return false;
    if (s->bulk) {
        smos__table_clear(&s->table);
        s->bulk = false;
    }
    return true;
}


static void end_of_burst(smos_shard_t *s)
{
    smos__flow_expire(s);
    if (s->timers.next_ns <= s->now_ns) smos__timers_run(s);
    if (s->events.sweep != SMOS__NO_FLOW) smos__events_sweep(&s->events, SWEEP_PER_BURST);
    if (s->defrag) {
        smos__defrag_release(s->defrag);
        smos__defrag_expire(s->defrag, s->now_ns, 16);
    }
    smos__events_end_burst(&s->events, s->now_ns);
    if (s->port->flush) s->port->flush(s->port);
    if (s->handover) smos__handover_flush(s);
    s->log_budget = 16;
    SMOS__COUNT(s, bursts);
    s->stats->heartbeat++;
    s->events.crumb.heartbeat++;
    if (++s->since_publish >= BURSTS_PER_PUBLISH) smos__stats_publish(s);
}


static uint32_t back(smos_shard_t *s, uint32_t bits)
{
    smos__events_end_burst(&s->events, s->now_ns);
    smos__stats_publish(s);
    return bits;
}


uint32_t smos_shard_run(smos_shard_t *s, int64_t max_ns)
{
    int64_t deadline;
    if (__builtin_add_overflow(clock_ns(), max_ns, &deadline)) deadline = INT64_MAX; /* as long as there is something to do */
    if (!s->port) return snprintf(s->error, sizeof s->error, "the shard has no port"), SMOS_RUN_FAILED;
    for (;;) {
        uint32_t bits = wanting(s, false);
        if (bits) return back(s, bits);
        if (atomic_load_explicit(&s->interrupted, memory_order_relaxed) && atomic_exchange(&s->interrupted, 0)) return back(s, SMOS_RUN_INTERRUPTED);
        if (s->draining) {
            if (!finish_some(s, SMOS_END_CAPTURE, 0)) continue;
            s->draining = false;
            s->finish_at = 0;
            s->finish_reported = 0;
        }
        int n = s->pending;
        s->pending = 0;
        if (!n) {
            if (s->ended) return back(s, SMOS_RUN_END);
            n = s->port->receive(s->port, s->frames, SMOS__BURST);
            if (s->port->now_ns > s->now_ns) s->now_ns = s->port->now_ns; /* a ring's clock: others' packets move time too */
            if (n > 0 && s->port->epoch != s->round) { /* the replay began again: the flows of the last round are over */
                s->round = s->port->epoch;
                s->draining = true;
                s->pending = n;
                continue;
            }
        }
        if (n < 0) {
            s->ended = true;
            if (n == SMOS__PORT_FAILED) snprintf(s->error, sizeof s->error, "%s", s->port->error);
            return back(s, n == SMOS__PORT_FAILED ? SMOS_RUN_FAILED : SMOS_RUN_END);
        }
        if (n == 0) {
            end_of_burst(s);
            return back(s, SMOS_RUN_IDLE | wanting(s, true));
        }
        smos__process_burst(s, n);
        end_of_burst(s);
        if ((n < SMOS__BURST || s->counters[SMOS__C_bursts] % BURSTS_PER_CLOCK == 0) && clock_ns() >= deadline) return back(s, SMOS_RUN_TIME);
    }
}


uint32_t smos_shard_finish(smos_shard_t *s, uint32_t reason, uint64_t report_limit)
{
    uint32_t bits;
    do {
        bits = wanting(s, false);
    } while (!bits && !finish_some(s, reason, report_limit));
    if (!bits) {
        s->finish_at = 0;
        s->finish_reported = 0;
        bits = SMOS_RUN_END;
    }
    return back(s, bits);
}


uint64_t smos_shard_take_records(smos_shard_t *s, const smos_flow_info_t **records)
{
    uint64_t n = s->record_count;
    smos_flow_info_t *full = s->records;
    s->records = s->records_taken;
    s->records_taken = full;
    s->record_count = 0;
    *records = full;
    return n;
}


uint64_t smos_shard_take_events(smos_shard_t *s, const uint8_t **msgpack)
{
    *msgpack = NULL;
    return smos__outbox_take(&s->outbox, msgpack);
}


void smos_shard_set_publish(smos_shard_t *s, uint32_t publish)
{
    take_publish(s, publish);
    if (!s->collect) s->record_count = 0;
}


void smos_shard_set_closed(smos_shard_t *s, int closed) { s->closed = closed; }


/* ---- modules ---- */

static int timed_commit(smos_shard_t *s, int (*change)(smos_shard_t *, const void *, smos_box_t **), const void *what, smos_box_t **old, smos_box_t *box)
{
    int64_t start = clock_ns();
    int status = change(s, what, old);
    if (!status && *old) smos__timers_drop(&s->timers, *old);
    if (!status && box) {
        smos__timers_arm(s, box);
        smos__log_lines(s, box);
        box->stats.commit_ns = (uint64_t)(clock_ns() - start);
    }
    smos__stats_publish(s);
    return status;
}


static int commit_box(smos_shard_t *s, const void *box, smos_box_t **old) { return smos__events_commit(&s->events, (smos_box_t *)(uintptr_t)box, old); }
static int remove_name(smos_shard_t *s, const void *name, smos_box_t **old) { return smos__events_remove(&s->events, name, old); }

int smos_shard_commit(smos_shard_t *s, smos_box_t *box, smos_box_t **old) { return timed_commit(s, commit_box, box, old, box); }
int smos_shard_remove(smos_shard_t *s, const char *name, smos_box_t **old) { return timed_commit(s, remove_name, name, old, NULL); }


void smos_shard_set_bracket(smos_shard_t *s, void (*enter)(void *), void (*leave)(void *), void *arg)
{
    s->events.enter = enter;
    s->events.leave = leave;
    s->events.bracket = arg;
    s->events.entered = !enter;
}


const char *smos_version(void) { return SMOS_VERSION; }
const char *smos_anomaly_name(uint32_t anomaly) { return smos__anomaly_name(anomaly); }
uint32_t smos_anomaly_count(void) { return SMOS__ANOMALY_COUNT; }
