/* prefix.h: what holds for whole networks: a policy by the longest prefix of an address. Pure. */
#ifndef SMOS__PREFIX_H
#define SMOS__PREFIX_H

#include "shardmos/engine.h"

/* Longest prefixes first, as smos__prefix_find wants them. */
void smos__prefixes_sort(smos_prefix_policy_t *, uint32_t count);

/* The policy of the longest prefix that holds the address (16 bytes, as in smos_tuple); `otherwise` if none does. A walk over the list: its
 * length is bounded, and it is asked once a flow or datagram. */
uint8_t smos__prefix_find(const smos_prefix_policy_t *, uint32_t count, const uint8_t address[16], uint8_t version, uint8_t otherwise);

#endif
