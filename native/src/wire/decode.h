/* decode.h: a frame to its flow-bearing layers. */
#ifndef SMOS__DECODE_H
#define SMOS__DECODE_H

#include "wire/packet.h"

typedef struct smos__defrag smos__defrag_t;

/* Fills *out. Walks link type, VLAN/QinQ, MPLS, PPPoE, IPv4/IPv6 with extension headers, GRE, ERSPAN, VXLAN, GENEVE, GTP-U,
 * Teredo, IP-in-IP; each IP packet found is a layer, outermost first. `defrag` may be NULL: fragments are then reported held
 * and lost. Never fails: malformed input is described in *out. */
void smos__decode(const smos__frame_t *frame, smos__defrag_t *defrag, smos__decoded_t *out);

/* The same for the plainest frames alone, in one piece (fast.c): false if this is none of them, and *out is then undefined. */
bool smos__decode_fast(const smos__frame_t *frame, smos__decoded_t *out);

/* The addresses, ports, protocol and version of a plain IPv4 TCP frame, without looking at more: smos__decode would give result OK and one layer with
 * them, and no anomaly but that layer's. False: decode it to know. */
bool smos__peek_tuple(const smos__frame_t *frame, smos_tuple_t *out);

/* 1 if smos__decode knows the LINKTYPE_ value. */
int smos__linktype_supported(uint32_t linktype);

/* Symmetric: the same for both directions, independent of vlan and tunnel; computable by a cBPF program (32-bit adds, multiplies,
 * xors and shifts). The owner of a flow among n workers is smos__owner(hash, n). Not the flow table's hash. */
uint32_t smos__owner_hash(const smos_tuple_t *tuple, uint32_t seed);

static inline uint32_t smos__owner(uint32_t hash, uint32_t workers)
{
    return (uint32_t)(((uint64_t)hash * workers) >> 32);
}

/* Internet checksum (RFC 1071) of `length` bytes as a folded, not complemented 16-bit sum in host order; `sum` starts it. */
uint32_t smos__checksum(const uint8_t *data, uint32_t length, uint32_t sum);

#endif
