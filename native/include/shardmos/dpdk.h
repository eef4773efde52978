/* dpdk.h: devices of DPDK as ports of a shard, in a library built with -DSMOS_DPDK=ON (DPDK 21.11 or later, found by pkg-config).
 *
 * For programs of their own on this library. `shardmos up` does not know them: DPDK's memory and devices belong to one process, whose threads
 * are the workers then, where the coordinator's workers are processes without privileges.
 */
#ifndef SHARDMOS_DPDK_H
#define SHARDMOS_DPDK_H

#include "shardmos/engine.h"

/* One queue of a device, or of two between which the shard sits. */
typedef struct smos_dpdk_port {
    const char *device[2]; /* as EAL names them: "0000:01:00.0", "net_af_packet0"; device[1] NULL: passive */
    uint16_t queue;        /* this shard's, from 0 */
    uint16_t queues;       /* receive and transmit queues of each device; the first port on it configures it, with RSS of a symmetric key where it has that */
    uint16_t descriptors;  /* of each ring; 0: 1024 */
    uint8_t promiscuous;   /* passive: see frames to other stations too; a pair always does */
    uint8_t reserved;
} smos_dpdk_port_t;

/* rte_eal_init, once in a process, with arguments as testpmd takes them; argv[0] is the program's name. 0, or a negative errno with one line in
 * `error` (SMOS_ERROR_SIZE bytes). */
int smos_dpdk_init(int argc, const char *const *argv, char *error);
/* Before the first run, of shards of any thread. The port polls: where it has nothing, smos_shard_run says SMOS_RUN_IDLE and smos_shard_fd -1.
 * 0 or a negative errno with one line in `error`. */
int smos_shard_add_dpdk_port(smos_shard_t *, const smos_dpdk_port_t *, char *error);

#endif
