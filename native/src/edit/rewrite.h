/* rewrite.h: changing a decoded packet in place: bytes, the payload's length, checksums. Pure. The layer is the only one of its frame, and
 * both lie in a buffer of the caller's with `room` bytes. */
#ifndef SMOS__REWRITE_H
#define SMOS__REWRITE_H

#include "wire/packet.h"

/* The layer's pointers, from the frame's own bytes to its copy. */
void smos__rewrite_move(smos__layer_t *, const uint8_t *from, const uint8_t *to);

/* Replaces `removed` bytes of the payload from `offset` on by `added` others; lengths follow (IP, IPv6, UDP), link-layer padding goes. -EMSGSIZE beyond
 * 65,535 bytes of IP packet or the buffer; nothing is changed then. */
int smos__rewrite_payload(smos__frame_t *, smos__layer_t *, uint32_t room, uint32_t offset, uint32_t removed, const uint8_t *data, uint32_t added);

/* Sets the checksums right: IPv4's, and TCP's, UDP's, ICMP's; where the host left one to a device (offload), the sum of the pseudo header. */
void smos__rewrite_checksums(smos__frame_t *, smos__layer_t *);

/* The same by difference (RFC 1624), after `length` bytes of the headers, which were `before`, were overwritten: what was wrong stays wrong. False: a length
 * or a sum changed, or it is not whole 16-bit words; nothing is done then. */
bool smos__rewrite_mend(const smos__frame_t *, smos__layer_t *, const uint8_t *at, const uint8_t *before, uint32_t length);

/* Fields of the TCP header; the checksum is not touched. */
void smos__rewrite_tcp(smos__layer_t *, uint32_t seq, uint32_t ack);

static inline void smos__put16(uint8_t *at, uint32_t v) { at[0] = (uint8_t)(v >> 8); at[1] = (uint8_t)v; }
static inline void smos__put32(uint8_t *at, uint32_t v) { smos__put16(at, v >> 16); smos__put16(at + 2, v); }

/* Sum over an IPv4 header, complemented, ready for its field. */
uint16_t smos__ip_checksum(const uint8_t *ip, uint32_t length);
/* Checksum of `length` bytes of transport protocol `proto` between the addresses of the IP header; pseudo_only: the pseudo header's sum, not complemented. */
uint16_t smos__l4_checksum(const uint8_t *ip, const uint8_t *l4, uint32_t length, uint8_t proto, bool pseudo_only);

#endif
