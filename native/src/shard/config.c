#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "shard/shard.h"

#define SECONDS(n) ((n) * INT64_C(1000000000))
#define MIB (UINT64_C(1) << 20)


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
    c->max_jump_ns = SECONDS(7 * 24 * 3600);
    c->stats_fd = c->state_fd = c->breadcrumb_fd = -1;
}


int smos_config_memory(smos_config_t *c, uint64_t bytes)
{
    /* Fixed: queues, records, sets, defragmentation. Of the rest, a third for out-of-order data, the others for flows. */
    uint64_t defrag = bytes / 32 < 16 * MIB ? bytes / 32 : 16 * MIB;
    uint64_t fixed = 6 * MIB + defrag;
    if (bytes < 16 * MIB) return -EINVAL;
    uint64_t rest = bytes - fixed;
    c->defrag_bytes = defrag;
    c->buffer_bytes = rest / 3;
    uint64_t flow = sizeof(smos__flow_t) + sizeof(smos__flow_cold_t) + 12;
    c->max_flows = (rest - c->buffer_bytes) / flow;
    if (c->max_flows > 200000000) c->max_flows = 200000000;
    if (c->flow_buffer > c->buffer_bytes / 4) c->flow_buffer = (uint32_t)(c->buffer_bytes / 4);
    return 0;
}
