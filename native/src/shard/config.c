#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "shard/shard.h"

#define SECONDS(n) ((n) * INT64_C(1000000000))
#define MIB (UINT64_C(1) << 20)
#define MODULES_BYTES MIB     /* subscription sets, filters, timers; the modules' own memory and per-flow state are beside the bound */
#define MOST_FLOWS 200000000u


void smos_config_default(smos_config_t *c)
{
    memset(c, 0, sizeof *c);
    c->size = sizeof *c;
    c->workers = 1;
    c->max_flows = 1000000;
    c->buffer_bytes = 256 * MIB;
    c->flow_buffer = 4 * MIB;
    c->flow_segments = 4096;
    c->defrag_bytes = 16 * MIB;
    c->defrag_policy = SMOS__DEFRAG_LINUX;
    c->overlap_policy = SMOS__OVERLAP_FIRST;
    c->detail = SMOS_DETAIL_HISTORY | SMOS_DETAIL_RTT | SMOS_DETAIL_ANOMALIES;
    c->timeout_syn_ns = SECONDS(60);
    c->timeout_established_ns = SECONDS(3600);
    c->timeout_closed_ns = SECONDS(120);
    c->timeout_reset_ns = SECONDS(10);
    c->timeout_udp_ns = SECONDS(60);
    c->timeout_icmp_ns = SECONDS(30);
    c->gap_ns = SECONDS(120);
    c->adaptive = 60;
    c->compare_bytes = SMOS_COMPARE_HEARD;
    c->max_jump_ns = SECONDS(7 * 24 * 3600);
    c->stats_fd = c->state_fd = c->breadcrumb_fd = -1;
}


void smos__defrag_config(const smos_config_t *c, smos__defrag_config_t *out)
{
    *out = (smos__defrag_config_t){.max_datagrams = 4096, .max_fragments = 8192, .timeout_ns = SECONDS(60), .policy = c->defrag_policy};
    out->prefixes = c->defrag_prefixes;
    out->prefix_count = c->defrag_prefix_count;
    out->max_bytes = c->defrag_bytes > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)c->defrag_bytes;
}


uint64_t smos__shard_bytes(const smos_config_t *c)
{
    smos__defrag_config_t defrag;
    smos__defrag_config(c, &defrag);
    uint32_t flows = (uint32_t)c->max_flows;
    uint64_t bytes = smos__region_bytes(sizeof(smos_shard_t)) + smos__region_bytes(smos__arena_bytes(flows, c->buffer_bytes)) +
                     smos__region_bytes(smos__table_bytes(flows)) + smos__region_bytes(smos__queue_bytes(flows)) +
                     smos__region_bytes(smos__stats_bytes()) + 2 * SMOS__OUTBOX_BYTES +
                     2 * SMOS__RECORDS * sizeof(smos_flow_info_t);
    return c->defrag_bytes ? bytes + smos__region_bytes(smos__defrag_size(&defrag)) : bytes;
}


int smos_config_memory(smos_config_t *c, uint64_t bytes)
{
    const uint64_t flow = sizeof(smos__flow_t) + sizeof(smos__flow_cold_t) + sizeof(smos__flow_conn_t);
    if (bytes < 16 * MIB) return -EINVAL;
    smos_config_t chosen = *c;
    chosen.defrag_bytes = bytes / 32 < 16 * MIB ? bytes / 32 : 16 * MIB;
    chosen.buffer_bytes = MIB;
    chosen.max_flows = 1;
    uint64_t fixed = smos__shard_bytes(&chosen) + MODULES_BYTES;
    if (bytes < fixed + MIB) return -EINVAL;
    /* Of what is not fixed a third for out-of-order data, the others for flows: as many as fit with table, queue and what is rounded up. */
    chosen.buffer_bytes = (bytes - fixed) / 3;
    uint64_t low = 1, high = bytes / flow < MOST_FLOWS ? bytes / flow : MOST_FLOWS;
    while (low < high) {
        chosen.max_flows = low + (high - low + 1) / 2;
        if (smos__shard_bytes(&chosen) + MODULES_BYTES <= bytes)
            low = chosen.max_flows;
        else
            high = chosen.max_flows - 1;
    }
    chosen.max_flows = low;
    if (chosen.flow_buffer > chosen.buffer_bytes / 4) chosen.flow_buffer = (uint32_t)(chosen.buffer_bytes / 4);
    *c = chosen;
    return 0;
}
