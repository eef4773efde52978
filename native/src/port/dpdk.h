/* dpdk.h: a queue of a DPDK device, or of a pair of them, as a port. Internal to src. */
#ifndef SMOS__DPDK_H
#define SMOS__DPDK_H

#include "port/port.h"
#include "shardmos/dpdk.h"

smos__port_t *smos__dpdk_open(const smos_dpdk_port_t *, char *error); /* NULL with one line in error */

#endif
