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

/* 1 if smos__decode knows the LINKTYPE_ value. */
int smos__linktype_supported(uint32_t linktype);

/* Internet checksum (RFC 1071) of `length` bytes as a folded, not complemented 16-bit sum in host order; `sum` starts it. */
uint32_t smos__checksum(const uint8_t *data, uint32_t length, uint32_t sum);

#endif
