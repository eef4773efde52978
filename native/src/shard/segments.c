/* The memory of a shard: mapped from the coordinator's memfds, or private. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shard/shard.h"


#define LARGE_PAGE ((size_t)2 << 20)

/* A place of its own, which begins with a large page: what is used first lies at the start. NULL with errno. */
static void *reserve(size_t bytes)
{
    uint8_t *all = mmap(NULL, bytes + LARGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) return NULL;
    size_t before = -(uintptr_t)all % LARGE_PAGE;
    if (before) munmap(all, before);
    munmap(all + before + bytes, LARGE_PAGE - before);
    return all + before;
}


int smos__region_map(smos__region_t *r, int fd, size_t bytes)
{
    bytes = smos__region_bytes(bytes);
    if (fd >= 0 && (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)bytes) < 0)) return -errno; /* twice: zeroed */
    void *place = reserve(bytes);
    if (place == NULL) return -errno;
    r->memory = mmap(place, bytes, PROT_READ | PROT_WRITE, (fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS) | MAP_FIXED | MAP_NORESERVE, fd, 0);
    if (r->memory == MAP_FAILED) {
        int status = -errno;
        munmap(place, bytes);
        return r->memory = NULL, status;
    }
    r->bytes = bytes;
    return 0;
}


void smos__region_huge(smos__region_t *r)
{
    if (r->bytes >= 4 * LARGE_PAGE) madvise(r->memory, r->bytes, MADV_HUGEPAGE);
}


void smos__region_unmap(smos__region_t *r)
{
    if (r->memory) munmap(r->memory, r->bytes);
    r->memory = NULL;
}


static const char *const NAMES[SMOS__C_FIXED] = {
#define SMOS__COUNTER(id, name) [SMOS__C_##id] = name,
#include "shard/counters.def"
#undef SMOS__COUNTER
};


static size_t write_names(char *out)
{
    size_t n = 0;
    for (int i = 0; i < SMOS__C_COUNT; i++) {
        char name[96];
        int length = i < SMOS__C_FIXED ? snprintf(name, sizeof name, "%s", NAMES[i])
                                       : snprintf(name, sizeof name, "anomaly.%s", smos__anomaly_name((uint32_t)(i - SMOS__C_FIXED)));
        if (out) memcpy(out + n, name, (size_t)length + 1);
        n += (size_t)length + 1;
    }
    return n;
}


static size_t line_up(size_t n) { return (n + 63) & ~(size_t)63; }


size_t smos__stats_bytes(void)
{
    return line_up(sizeof(smos_stats_header_t)) + line_up(SMOS__C_COUNT * 8) + line_up(write_names(NULL)) + SMOS_MAX_MODULES * sizeof(smos_stats_module_t);
}


/* Puts the memfd's page where the breadcrumb is, at the shard's start: leaving one costs no look for it. */
static int share_crumb(smos_breadcrumb_t *crumb, int fd)
{
    if (fd < 0) return 0;
    size_t bytes = smos__region_bytes(sizeof *crumb);
    if (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)bytes) < 0) return -errno; /* twice: zeroed */
    return mmap(crumb, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED ? -errno : 0;
}


int smos__segments_open(smos_shard_t *s)
{
    size_t names = line_up(write_names(NULL)), counters = line_up(SMOS__C_COUNT * 8);
    size_t head = line_up(sizeof(smos_stats_header_t)), bytes = smos__stats_bytes();
    int status = smos__region_map(&s->stats_region, s->config.stats_fd, bytes);
    if (!status) status = share_crumb(&s->events.crumb, s->config.breadcrumb_fd);
    if (status) return status;
    smos_stats_header_t *h = s->stats = s->stats_region.memory;
    h->version = 2;
    h->bytes = (uint32_t)bytes;
    h->counters = SMOS__C_COUNT;
    h->counters_offset = (uint32_t)head;
    h->names_offset = (uint32_t)(head + counters);
    h->names_bytes = (uint32_t)write_names((char *)h + h->names_offset);
    h->modules = SMOS_MAX_MODULES;
    h->modules_offset = (uint32_t)(head + counters + names);
    s->events.crumb.version = 1;
    memcpy(s->events.crumb.magic, "SMOSCRMB", 8);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy(h->magic, "SMOSSTAT", 8); /* last: the segment is whole */
    return 0;
}


static void gather(smos_shard_t *s)
{
    uint64_t *c = s->counters;
    c[SMOS__C_flows_now] = s->arena.header->in_use;
    c[SMOS__C_buffered_bytes_now] = smos__pool_used(s->arena.pool);
    c[SMOS__C_buffer_limit_now] = smos__pool_size(s->arena.pool);
    c[SMOS__C_flow_limit_now] = s->config.max_flows;
    if (s->defrag) {
        const smos__defrag_stats_t *d = smos__defrag_stats(s->defrag);
        c[SMOS__C_fragments_in] = d->fragments;
        c[SMOS__C_fragments_refused] = d->bad;
        c[SMOS__C_datagrams_reassembled] = d->completed;
        c[SMOS__C_datagrams_timed_out] = d->timed_out;
        c[SMOS__C_datagrams_evicted] = d->evicted;
        c[SMOS__C_datagrams_waiting_now] = d->waiting;
    }
    c[SMOS__C_events_published] = s->outbox.published;
    c[SMOS__C_events_lost] = s->outbox.lost;
    c[SMOS__C_event_queue_bytes_now] = s->outbox.packer.used;
    if (s->port) {
        c[SMOS__C_port_lost] = s->port->stats.dropped;
        c[SMOS__C_port_packets] = s->port->stats.packets;
        c[SMOS__C_port_unordered] = s->port->stats.unordered;
        c[SMOS__C_port_outgoing] = s->port->stats.outgoing;
        c[SMOS__C_port_segments] = s->port->stats.segments;
        c[SMOS__C_port_completed] = s->port->stats.completed;
        c[SMOS__C_port_poison] = s->port->stats.poison;
        c[SMOS__C_port_time_backward] = s->port->stats.time_backward;
        c[SMOS__C_packets_forwarded] = s->port->stats.forwarded;
        c[SMOS__C_bytes_forwarded] = s->port->stats.forwarded_bytes;
        c[SMOS__C_drop_transmit_full] = s->port->stats.lost_full;
        c[SMOS__C_drop_transmit_refused] = s->port->stats.lost_refused;
        c[SMOS__C_drop_transmit_size] = s->port->stats.lost_size;
        c[SMOS__C_packets_sent] = s->port->stats.sent;
        c[SMOS__C_bytes_sent] = s->port->stats.sent_bytes;
        c[SMOS__C_packets_unsent] = s->port->stats.unsent;
    }
}


static void show_module(smos_stats_module_t *shown, const smos_box_t *box)
{
    *shown = box->stats;
    for (size_t i = 0; i < sizeof shown->event_calls / sizeof *shown->event_calls; i++) shown->calls += shown->event_calls[i] += SMOS__CYCLE_SAMPLE - box->untimed[i];
}


/* The private counters become visible all at once, so sums hold in every snapshot. */
void smos__stats_publish(smos_shard_t *s)
{
    smos_stats_header_t *h = s->stats;
    gather(s);
    uint64_t sequence = h->sequence;
    __atomic_store_n(&h->sequence, sequence + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    memcpy((uint8_t *)h + h->counters_offset, s->counters, sizeof s->counters);
    smos_stats_module_t *modules = (smos_stats_module_t *)((uint8_t *)h + h->modules_offset);
    for (int i = 0; i < SMOS_MAX_MODULES; i++) {
        const smos__socket_t *socket = s->events.sockets[i];
        if (socket && socket == socket->box->sockets[0])
            show_module(&modules[i], socket->box);
        else if (modules[i].name[0])
            memset(&modules[i], 0, sizeof modules[i]);
    }
    __atomic_thread_fence(__ATOMIC_RELEASE);
    __atomic_store_n(&h->sequence, sequence + 2, __ATOMIC_RELEASE);
    s->since_publish = 0;
}


const smos_stats_header_t *smos_shard_stats(const smos_shard_t *s) { return s->stats; }
