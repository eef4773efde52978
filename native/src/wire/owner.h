/* owner.h: who owns a flow. Symmetric: the same for both directions, independent of vlan and tunnel; 32-bit adds, multiplies, xors and shifts only, so that a cBPF
 * program can compute it. The owner of a flow among n workers is smos__owner(hash, n). Not the flow table's hash. */
#ifndef SMOS__OWNER_H
#define SMOS__OWNER_H

#include <stdint.h>

#include "shardmos/shardmos.h"

uint32_t smos__owner_hash(const smos_tuple_t *tuple, uint32_t seed);

static inline uint32_t smos__owner(uint32_t hash, uint32_t workers)
{
    return (uint32_t)(((uint64_t)hash * workers) >> 32);
}

/* Its steps: 32 bits of both addresses, from the first on, as sum and difference, which are the same in both directions; then the ports. */
static inline uint32_t smos__owner_add(uint32_t h, uint32_t sum, uint32_t difference)
{
    h = (h ^ sum) * 0x9e3779b1u;
    return (h ^ difference) * 0x85ebca6bu;
}

static inline uint32_t smos__owner_end(uint32_t h, uint32_t sport, uint32_t dport, uint8_t proto)
{
    h = smos__owner_add(h, (sport + dport) << 8 ^ proto, sport ^ dport);
    h ^= h >> 16;
    h *= 0x85ebca6bu;
    h ^= h >> 13;
    h *= 0xc2b2ae35u;
    return h ^ h >> 16;
}

/* The hash of an IPv4 flow; addresses and ports in host order. `begun`: what all of them have in common. */
uint32_t smos__owner_begin4(uint32_t seed);
static inline uint32_t smos__owner_hash4(uint32_t begun, uint32_t source, uint32_t destination, uint16_t sport, uint16_t dport, uint8_t proto)
{
    return smos__owner_end(smos__owner_add(begun, source + destination, source ^ destination), sport, dport, proto);
}

#endif
